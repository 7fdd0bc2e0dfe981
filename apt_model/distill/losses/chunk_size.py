"""How many positions the fused loss takes at a time, and how wide their buffer is. Numbers only: no torch."""

MULTIPLE = 64  # of floats in a row: products with an odd row stride take half as long again
BUDGET = 256 * 2**20  # bytes of both heads' logits at a time
MOST_ROWS, FEWEST_ROWS = 256, 32  # of a chunk: more gains nothing, fewer leave the matrix product starving


def padded(width: int) -> int:
    """The width of a buffer for `width` columns."""
    return -(-width // MULTIPLE) * MULTIPLE


def chunk_rows_for(width: int, itemsize: int, budget: int = BUDGET) -> int:
    """Positions of a chunk, so that both heads' logits of `itemsize` bytes each stay within `budget` bytes."""
    rows = budget // (2 * padded(width) * itemsize)
    return int(min(max(rows, FEWEST_ROWS), MOST_ROWS * 4 // itemsize))
