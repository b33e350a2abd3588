"""Attention, context blocks, backbones."""
