"""Prints a Markdown table of measurements, as wide as the terminal, with one row marked. Knows nothing of recipes."""

from itertools import accumulate, takewhile

from rich import box
from rich.table import Table
from rich.text import Text
from wcwidth import wcswidth as cells

from apt_model.render.sanitise import fit_encoding, sanitise
from apt_model.render.terminal import make_console

NARROWEST_NAME = 16  # cells for the first column, whose words wrap
MARK, GAP = "▶", 1  # the gap is what the box puts between columns


class Printer:
    """Prints lines and tables on standard output, wrapped to its width."""

    def __init__(self) -> None:
        self._console = make_console()
        self._columns = self._console.width - 1

    def text(self, line: str) -> None:
        """Print a line, wrapped between words."""
        self._console.print(self._cell(line), width=self._columns)

    def table(self, markdown: str, *, marked: str) -> list[str]:
        """Print a text with one Markdown table in it; the row whose first cell is `marked` gets a mark.

        Columns that the width has no room for are left out, from the right.

        Returns:
            The headings of the columns that are left out.
        """
        lines = markdown.strip().splitlines()
        self.text(" ".join(line for line in lines if line and not line.startswith("|")))
        head, _, *rows = [[one.strip() for one in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        widths = [_width(column) for column in zip(head, *rows, strict=True)]
        kept = self._room(widths)
        table = Table(box=box.SIMPLE_HEAD, width=self._columns, padding=0, pad_edge=False, show_edge=False)
        table.add_column("", width=cells(MARK))
        table.add_column(self._cell(head[0]), ratio=1)
        for heading, width in zip(head[1:kept], widths[1:kept], strict=True):
            table.add_column(self._cell(heading), width=width, justify="right")
        for row in rows:
            own = row[0] == marked
            style = "bold" if own else ""
            table.add_row(self._cell(MARK if own else ""), *map(self._cell, row[:kept]), style=style)
        self._console.print(table)
        return head[kept:]

    def _room(self, widths: list[int]) -> int:
        """How many columns fit beside a first one whose words wrap."""
        room = self._columns - cells(MARK) - GAP - NARROWEST_NAME
        needed = accumulate(width + GAP for width in widths[1:])
        return 1 + len(list(takewhile(lambda width: width <= room, needed)))

    def _cell(self, text: str) -> Text:
        return Text(fit_encoding(sanitise(text.replace("**", "")), self._console.encoding))


def _width(column: tuple[str, ...]) -> int:
    """Cells of a column whose heading wraps between words."""
    heading, *body = column
    return max(map(cells, [*heading.split(), *body]))
