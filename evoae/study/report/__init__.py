"""Notebooks executed by papermill, what they show, and their pages."""
