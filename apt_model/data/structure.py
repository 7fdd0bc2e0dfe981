"""Structure of a row: whether its columns hold what its kind of row needs, before any tokenizer sees it.

Knows rows; knows nothing of files, tokenizers or templates.
"""

from collections.abc import Mapping
from typing import Any

from apt_model.data.columns import MASKS, kind_of
from apt_model.data.turns import chat_of, needed_text, text_of
from apt_model.errors import DataError, brief

IDS = ("input_ids", "labels", "attention_mask", "position_ids", "seq_lengths", *MASKS)  # columns of whole numbers
LARGEST = 2**63


class RowError(DataError):
    """A row cannot be learned from; `index` is its number among the rows that were given, from 0."""

    index: int

    @classmethod
    def of(cls, error: DataError, index: int) -> "RowError":
        """The error with its row; it can be sent from one process to another."""
        made = cls(error.what, got=error.got, expected=error.expected, fix=error.fix)
        made.index = index
        return made


def at_row(error: DataError, where: str) -> DataError:
    """The same error, with the row that it is about: "a.jsonl, line 7: …"."""
    return DataError(f"{where}: {error.what}", got=error.got, expected=error.expected, fix=error.fix)


def check_row(row: Mapping[str, Any]) -> None:
    """Refuse a row whose columns hold something else than its kind needs.

    Raises:
        DataError: a text that is no string, a chat without turns, a turn without speaker or words, ids that are none.
    """
    kind = kind_of(row.keys())
    try:
        if kind.name == "ids":
            _check_ids(row)
        elif kind.name == "text":
            text_of(row, "text")
        elif chat_of(row) is None:
            for column in kind.needs:
                needed_text(row, column)
    except DataError as error:
        fix = error.fix or "correct or delete this row"
        raise DataError(error.what, got=error.got, expected=error.expected, fix=fix) from error


def _check_ids(row: Mapping[str, Any]) -> None:
    for column in IDS:
        values = row.get(column)
        if values is None:
            continue
        are_whole = isinstance(values, list) and set(map(type, values)) <= {int, bool}
        if not are_whole or (values and not -LARGEST <= min(values) <= max(values) < LARGEST):
            got = f"{type(values).__name__} {brief(values)}"
            raise DataError(f"{column} of a row is no list of ids", got=got, expected="a list of whole numbers")
