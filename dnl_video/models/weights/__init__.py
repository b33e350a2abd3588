"""Weights: reading other projects' checkpoints and our own, loading them into networks, writing files that travel."""
