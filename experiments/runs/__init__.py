"""Runs: the config, training and resuming, and the files in a run's folder."""
