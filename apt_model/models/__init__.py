"""One causal language model: load and save it, call it, get at its output head and activations, generate with it."""
