"""Costs, receptive fields and logits of networks and their context blocks."""
