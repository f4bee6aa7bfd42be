"""Loops: the carry, acting, learning and evaluation; where agent, replay and environments meet."""
