"""How a network is executed: attention kernels, folded batch norms, recomputation, exported programs."""
