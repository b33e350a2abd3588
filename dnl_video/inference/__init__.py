"""Scores and features of videos, from single files to whole lists."""
