"""Controlled studies: runs that differ only in the context and the seed."""
