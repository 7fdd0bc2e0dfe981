"""One causal language model: load and save it, call it, take its head and layers apart, generate with it."""
