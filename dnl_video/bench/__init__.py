"""Benchmarks behind `dnl-video bench`: ours against the form that public code has."""
