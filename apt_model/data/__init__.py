"""Data pipeline: files to rows, rows to token ids, ids to batches; tokenizer alignment, random generators."""
