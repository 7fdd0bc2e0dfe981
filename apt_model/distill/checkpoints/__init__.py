"""Checkpoints of a run (weights, optimizer, counters, random generators): saved atomically, resumed exactly."""
