"""Microbenchmarks: matrix products, checkpoints, the teacher's cache, cards, the display, the page's server."""
