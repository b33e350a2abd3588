"""Pictures of attention maps and of scores over time."""
