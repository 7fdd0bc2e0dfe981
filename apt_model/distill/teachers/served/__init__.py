"""A teacher behind an inference server: its top-k log-probabilities over HTTP."""
