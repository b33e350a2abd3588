"""What a network costs and what its blocks attend to."""
