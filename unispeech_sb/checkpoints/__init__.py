"""Checkpoint files and folders: reading, naming, writing. No models."""
