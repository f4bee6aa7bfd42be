"""Runs: config, training, resuming, and the files in a run's folder."""
