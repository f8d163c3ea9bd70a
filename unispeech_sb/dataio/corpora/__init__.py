"""One generator per corpus: from a folder of recordings to records."""
