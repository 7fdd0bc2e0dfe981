"""The cost of single pieces: products, checkpoints, a cached teacher, cards, viewers."""
