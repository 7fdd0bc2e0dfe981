"""A run on disk: weights, optimizer, counters, random generators; saved whole, resumed exactly."""
