"""polyak.experiments."""
