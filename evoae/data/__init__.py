"""Rows in [0, 1]: built in, drawn, from memory, or read from files and folders."""
