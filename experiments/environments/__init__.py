"""Environments: adapters that step many Gymnasium environments together, in this process or in worker processes."""
