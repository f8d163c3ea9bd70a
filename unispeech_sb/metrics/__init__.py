"""Metrics: what a model's predictions are worth."""
