"""One yaml per recipe: every number of a run."""
