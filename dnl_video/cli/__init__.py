"""The command line. Each command is one module; its `run` imports the libraries."""
