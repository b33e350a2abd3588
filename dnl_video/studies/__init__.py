"""Controlled studies: the same network, data, order and budget, and one thing that differs."""
