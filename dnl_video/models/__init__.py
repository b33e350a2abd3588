"""Context blocks, their mathematics, and the backbones that they are inserted into."""
