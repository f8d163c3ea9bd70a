"""Backbone and heads: the modules that a yaml names."""
