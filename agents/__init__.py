"""polyak.agents."""
