"""Loops: carry, acting, learning and evaluation; the only place where agent, replay and environments meet."""
