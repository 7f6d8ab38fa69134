"""Runs on disk, grids of them, and the workers that compute them."""
