"""Students cut out of their teacher: fewer layers, heads and neurons, a narrower stream."""
