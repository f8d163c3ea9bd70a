"""SUPERB as one command: all tasks of a model, and a report of them."""
