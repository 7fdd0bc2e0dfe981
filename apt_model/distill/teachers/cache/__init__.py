"""The cache of a teacher's top-k logits on disk: written once, then read for every student."""
