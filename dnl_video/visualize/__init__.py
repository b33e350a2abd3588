"""Pictures of what context blocks attend to."""
