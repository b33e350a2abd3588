"""How a network is executed: kernels, folding for inference, activation checkpointing, export to programs."""
