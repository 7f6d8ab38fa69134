"""The paper's loop, the state of its cells, and what a finished trial is worth."""
