"""From files to scores."""
