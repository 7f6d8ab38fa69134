"""Rows in [0, 1]: built in, drawn, or read from files."""
