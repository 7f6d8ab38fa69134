"""Operators (what is pruned), schedules (when), and how masks are applied."""
