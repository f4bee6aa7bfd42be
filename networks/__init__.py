"""polyak.networks."""
