"""Sources of teacher logits: a live model, a cache of its top-k logits, or a model with another tokenizer."""
