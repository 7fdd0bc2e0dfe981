"""The cache of a teacher's top-k logits on disk: written once, read by every student after."""
