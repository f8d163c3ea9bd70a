"""Training scripts, one per task; each has a yaml of its name in hparams."""
