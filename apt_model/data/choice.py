"""Choice of columns: which columns of the rows at hand take part, under which names, and which ones do not.

Knows names and nulls; knows nothing of files or of what a column holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apt_model.data.columns import Kind, kind_of
from apt_model.data.structure import check_row
from apt_model.errors import DataError

RENAMED = {"conversations": "messages"}  # ShareGPT's name of a chat


class ColumnChoice:
    """Picks the columns that take part, row by row; all rows must be of one kind.

    Args:
        columns: our name of a column, and the name that it has in the data.

    Attributes:
        kind: that of the rows; None before the first.
        unused: the names, in the data, of columns that take no part and are not null everywhere.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.kind: Kind | None = None
        self.unused: dict[str, None] = {}
        self._columns = dict(columns)
        self._missing = dict(columns)
        self._known: dict[tuple[str, ...], dict[str, str]] = {}

    def names(self) -> list[str]:
        """Our names of all columns that rows of this kind may have.

        Raises:
            DataError: a column that was to be renamed is nowhere.
        """
        self.refuse_missing()
        return _ours((*self.kind.needs, *self.kind.may)) if self.kind else []

    def needs(self) -> list[str]:
        """Our names of the columns that make this kind of row."""
        return _ours(self.kind.needs) if self.kind else []

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a row that take part, under our names.

        Raises:
            DataError: there is no column to learn from, the row is of another kind than those before, or a column holds
                something else than this kind needs.
        """
        there = tuple(name for name, value in row.items() if value is not None)
        try:
            taken = self._taken(there)
        except DataError:
            if len(there) == len(row):
                raise
            taken = self._taken(tuple(row))
        picked = {ours: row[theirs] for ours, theirs in taken.items()}
        check_row(picked)
        return picked

    def table(self, names: Sequence[str]) -> list[str]:
        """Of a table's columns, as they are called there, those that take part."""
        return list(self._taken(tuple(names)).values())

    def pairs(self, names: Sequence[str]) -> dict[str, str]:
        """Of a table's columns those that take part: our name, and the name there."""
        return dict(self._taken(tuple(names)))

    def _taken(self, names: tuple[str, ...]) -> dict[str, str]:
        if names not in self._known:
            self._known[names] = self._choose(names)
        return self._known[names]

    def _choose(self, names: tuple[str, ...]) -> dict[str, str]:
        renamed = {ours: theirs for ours, theirs in self._columns.items() if theirs in names}
        shown = {name: name for name in names if name not in renamed.values()} | renamed
        kind = self._kind(renamed, shown, names)
        used = kind.used(shown)
        idle = next((ours for ours in renamed if ours not in used), None)
        if idle is not None:
            got = f"{renamed[idle]} renamed {idle}, in rows with {' and '.join(kind.needs)}"
            raise DataError("a renamed column would not be used", got=got, fix="leave that renaming out")
        if self.kind is not None and _ours(kind.needs) != self.needs():
            got = f"columns {' and '.join(kind.needs)} after {' and '.join(self.kind.needs)}"
            raise DataError("the data holds rows of different kinds", got=got, fix="use rows with the same columns")
        self.kind = kind
        self._missing = {ours: theirs for ours, theirs in self._missing.items() if ours not in renamed}
        taken = {RENAMED.get(name, name): shown[name] for name in used}
        self.unused |= dict.fromkeys(name for name in names if name not in taken.values())
        return taken

    def _kind(self, renamed: Mapping[str, str], shown: Mapping[str, str], names: Sequence[str]) -> Kind:
        """The kind that the renamed columns make; if they make none, that of all columns."""
        try:
            return kind_of(renamed, of="the row")
        except DataError:
            pass
        try:
            return kind_of(shown, of="the row")
        except DataError:
            self.refuse_missing(names)
            raise

    def refuse_missing(self, names: Iterable[str] = ()) -> None:
        """Refuse a renaming of a column that no row had.

        Raises:
            DataError: names the columns that are there.
        """
        for theirs in self._missing.values():
            there = ", ".join(names) or ", ".join(self.unused)
            raise DataError(f"there is no column {theirs!r} to be renamed", expected=there, fix="check --columns")


def _ours(names: Sequence[str]) -> list[str]:
    return [RENAMED.get(name, name) for name in names]
