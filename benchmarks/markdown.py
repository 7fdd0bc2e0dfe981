"""Format Markdown tables. Knows nothing of their contents."""

from collections.abc import Sequence

MISSING = "–"


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def head(names: Sequence[str]) -> str:
    """The header row of a table, and the line under it."""
    return f"{row(names)}\n{row(['---'] * len(names))}"


def grid(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A whole table."""
    return "\n".join([head(names), *map(row, rows)]) + "\n"
