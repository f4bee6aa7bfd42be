"""Functional environments: pure functions of a state, which a compiled program can step; polyak's own, and adapters."""
