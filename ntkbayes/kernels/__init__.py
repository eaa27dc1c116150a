"""Kernel matrices as such: tiles, memory, and the numerics of pairs that nearly coincide."""
