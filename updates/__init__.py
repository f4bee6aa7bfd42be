"""polyak.updates."""
