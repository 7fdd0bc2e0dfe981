"""Structure of a row: whether its columns hold what its kind of row needs, before any tokenizer sees it.

Knows rows; knows nothing of files, tokenizers or templates.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from apt_model.data.columns import MASKS
from apt_model.errors import DataError, brief

IDS = ("input_ids", "labels", "attention_mask", "position_ids", *MASKS)
TURNS = ("messages", "prompt", "completion")  # the last two may be strings
LARGEST = 2**63

QUOTE = "write it in quotes, or delete this row"
CORRECT = "correct or delete this row"


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
    if "text" in row and not isinstance(row["text"], str | None):
        raise DataError("text of a row is no string", got=_seen(row["text"]), expected="a string or null", fix=QUOTE)
    for column in IDS:
        if row.get(column) is not None:
            _check_ids(row[column], column)
    for column in TURNS:
        if column in row and (column == "messages" or not isinstance(row[column], str | None)):
            _check_turns(row[column], column)


def _check_ids(values: Any, column: str) -> None:
    are_whole = isinstance(values, list) and set(map(type, values)) <= {int, bool}
    if not are_whole or (values and not -LARGEST <= min(values) <= max(values) < LARGEST):
        expected = "a list of whole numbers"
        raise DataError(f"{column} of a row is no list of ids", got=_seen(values), expected=expected, fix=CORRECT)


def _check_turns(turns: Any, column: str) -> None:
    turns = _parsed(turns)
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not all(isinstance(t, Mapping) for t in turns):
        expected = '[{"role": ..., "content": ...}, ...]'
        raise DataError(f"{column} of a row is no list of turns", got=_seen(turns), expected=expected, fix=CORRECT)
    if not turns:
        raise DataError(f"{column} of a row has no turn", got="an empty list", fix="delete this row")
    for number, turn in enumerate(turns, start=1):
        if isinstance(turn.get("role"), str) and ("content" in turn or turn.get("tool_calls")):
            continue
        if isinstance(turn.get("from"), str) and "value" in turn:
            continue
        got, expected = f"keys {sorted(map(str, turn))}", "role and content, or from and value"
        raise DataError(f"turn {number} of a chat has no role or no content", got=got, expected=expected, fix=CORRECT)


def _parsed(turns: Any) -> Any:
    """Turns that stand as JSON in a cell."""
    if not isinstance(turns, str) or not turns.lstrip().startswith("["):
        return turns
    try:
        return json.loads(turns)
    except (ValueError, RecursionError):
        return turns


def _seen(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {brief(value)}"
