"""Make students: fresh from a config, or pruned from a teacher's layers, heads, neurons and hidden size."""
