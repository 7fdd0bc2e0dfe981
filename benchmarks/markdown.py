"""Markdown tables. Knows nothing of what stands in them."""

from collections.abc import Sequence

MISSING = "–"


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def head(names: Sequence[str]) -> str:
    """The two lines that a table begins with."""
    return f"{row(names)}\n{row(['---'] * len(names))}"


def grid(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A whole table."""
    return "\n".join([head(names), *map(row, rows)]) + "\n"
