"""Layers, losses and length arithmetic: plain torch, no model."""
