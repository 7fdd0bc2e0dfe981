"""The scorecard: every fault of the matrix, by our own tests and by what well-known trainers do under it."""
