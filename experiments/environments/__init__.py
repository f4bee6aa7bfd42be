"""Environments: adapters of Gymnasium that step many of them together, in this process or in others."""
