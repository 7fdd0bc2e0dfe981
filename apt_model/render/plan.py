"""The memory table of a plan: a column for each arrangement, or below each other on a narrow screen.

Knows numbers and words; knows nothing of how the numbers were found.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wcwidth import wcswidth

from apt_model.i18n import Phrases
from apt_model.render.wrap import wrap

GB = 10**9
Sentence = tuple[str, Mapping[str, Any]]  # the key of a sentence in the locale's `plan` table, and its values


@dataclass(frozen=True, kw_only=True)
class PlanColumn:
    """An arrangement of the models on the GPUs.

    Attributes:
        name: its key in the locale's `plan` table.
        needs: bytes on each GPU, by purpose.
        fits: whether a GPU has as much.
        rows: the most rows at a time with which it fits.
    """

    name: str
    needs: Mapping[str, int]
    fits: bool
    rows: int


def plan_lines(
    before: Sequence[Sentence], columns: Sequence[PlanColumn], after: Sequence[Sentence], *, say: Phrases, width: int
) -> Iterator[str]:
    """Sentences, the table, sentences; none wider than `width` cells but a command."""
    yield from _sentences(before, say, width)
    yield ""
    cells = [_cells(column, say) for column in columns]
    labels = [say(f"plan.{key}") if key else "" for key in ("", *columns[0].needs, "total", "fits", "rows")]
    shown = [row for row in zip(labels, *cells, strict=True) if any(cell != "–" for cell in row[1:])]
    widths = [max(map(wcswidth, column)) for column in zip(*shown, strict=True)]
    if sum(widths) + 2 * len(columns) <= width:
        for row in shown:
            left, *numbers = (f"{cell}{' ' * (room - wcswidth(cell))}" for cell, room in zip(row, widths, strict=True))
            yield "  ".join([left, *(" " * (len(one) - len(one.rstrip())) + one.rstrip() for one in numbers)]).rstrip()
    else:
        yield from _blocks(shown, width)
    yield ""
    yield from _sentences(after, say, width)


def _cells(column: PlanColumn, say: Phrases) -> list[str]:
    """The cells of a column, its head first."""
    total = sum(column.needs.values())
    numbers = [*column.needs.values(), total]
    marks = [say(f"plan.{'yes' if column.fits else 'no'}"), f"{column.rows:,}"]
    return [say(f"plan.{column.name}"), *(_gigabytes(number) for number in numbers), *marks]


def _gigabytes(size: int) -> str:
    """Decimal gigabytes with three digits at least."""
    digits = 1 if size >= 10 * GB else 2 if size >= GB else 3
    return f"{size / GB:,.{digits}f}" if size else "–"


def _blocks(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """A block for each arrangement: its name, then a line for each number."""
    heads, *numbers = rows
    for at, head in enumerate(heads[1:], 1):
        yield from ([""] if at > 1 else [])
        yield head
        for row in numbers:
            gap = width - 2 - wcswidth(row[0]) - wcswidth(row[at])
            if row[at] != "–":
                yield f"  {row[0]}{' ' * max(1, min(gap, 24 - wcswidth(row[0]) - wcswidth(row[at])))}{row[at]}"


def _sentences(sentences: Sequence[Sentence], say: Phrases, width: int) -> Iterator[str]:
    for key, values in sentences:
        sentence = say(f"plan.{key}", **values)
        lines = [(0, len(sentence))] if key == "command" else wrap(sentence, width)  # a command is copied whole
        for start, end in lines:
            yield sentence[start:end]
