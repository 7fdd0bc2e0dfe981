"""What a run needs around the step: models on disk, text as batches."""
