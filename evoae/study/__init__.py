"""What runs, analyses, draws and shows experiments. The library below knows nothing of it."""
