"""Data: files to rows, rows to token ids, token ids to batches; token texts, alignment, random generators."""
