"""Recordings and labels: corpora, manifests and the items datasets provide."""
