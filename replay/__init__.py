"""polyak.replay."""
