"""From listings of videos to clips."""
