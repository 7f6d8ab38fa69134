"""Stacked weights of many networks, their activations, gradient steps, and the kernel."""
