"""The predictions directory and the numbers computed from it."""
