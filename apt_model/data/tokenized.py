"""Rows as tokens: what `datasets` maps over rows, and what is told of the rows that it cuts or leaves out.

Knows rows and the encoder; knows nothing of files or batches.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from apt_model.data.encode import IGNORED, UNLIMITED, Encoded, encode_rows, pack_rows
from apt_model.data.notices import Tell
from apt_model.data.structure import RowError
from apt_model.errors import DataError

EMPTY, CUT, UNLABELLED = "__empty__", "__cut__", "__unlabelled__"  # rows without a token; tokens cut off; 1: no label
COUNTS = (EMPTY, CUT, UNLABELLED)

Columns = dict[str, list[Any]]


def tokenized(
    batch: Mapping[str, Sequence[Any]],
    indices: Sequence[int],
    tokenizer: Any,
    max_length: int,
    packing: bool,
    code: str = "",
) -> Columns:
    """Rows as `input_ids` and `labels` (and `position_ids`), with what was cut or empty in columns of its own.

    A row without a token stays, so that it is counted; `counted` takes it out. `code` changes nothing here: `datasets`
    keeps results by the arguments, and those of other code are not to be found again.

    Raises:
        RowError: a row cannot be encoded; its index is that of `indices`.
    """
    names = list(batch)
    rows = [_present(dict(zip(names, values, strict=True))) for values in zip(*batch.values(), strict=True)]
    encoded = _encoded(rows, indices, tokenizer, max_length if packing else UNLIMITED, packing)
    cut = [0 if packing or "input_ids" in batch else max(0, len(row.ids) - max_length) for row in encoded]
    short = [_until(row, max_length) if over else row for row, over in zip(encoded, cut, strict=True)]
    empty = [int(not row.ids) for row in short]
    if packing:
        short, empty = short or [Encoded([], [])], [sum(map(_is_empty, rows)), *[0] * max(0, len(short) - 1)]
        cut = [0] * len(short)
    columns: Columns = {"input_ids": [row.ids for row in short], "labels": [row.labels for row in short]}
    if packing or "position_ids" in batch:
        columns["position_ids"] = [row.positions or list(range(len(row.ids))) for row in short]
    unlabelled = [int(bool(row.ids) and not packing and set(row.labels[1:]) <= {IGNORED}) for row in short]
    return {**columns, EMPTY: empty, CUT: cut, UNLABELLED: unlabelled}


def streamed(batch: Mapping[str, Sequence[Any]], indices: Sequence[int], **how: Any) -> Columns:
    """`tokenized` without rows that have no token, and without counts: a stream is not counted beforehand."""
    columns = tokenized(batch, indices, **how)
    kept = [row for row, ids in enumerate(columns["input_ids"]) if ids]
    return {name: [values[row] for row in kept] for name, values in columns.items() if name not in COUNTS}


def counted(rows: Any, count: int, max_length: int, tell: Tell) -> Any:
    """Tokenized rows without the empty ones and the counts; those that were cut or left out are told of, once each.

    Args:
        rows: a `datasets.Dataset` of what `tokenized` made.
        count: rows before they were tokenized.
        max_length: tokens of a row at most.
        tell: takes the notices.
    """
    table = rows.data
    empty, cut, unlabelled = (table.column(name) for name in COUNTS)
    tokens, without, unlearned = (pc.sum(column).as_py() or 0 for column in (cut, empty, unlabelled))
    if without:
        tell("rows_empty", count=without, rows=count)
    if tokens:
        tell("rows_cut", count=pc.sum(pc.greater(cut, 0)).as_py(), rows=count, tokens=tokens, length=max_length)
    if unlearned:
        tell("rows_unlabelled", count=unlearned, rows=count, length=max_length)
    lengths = pc.list_value_length(table.column("input_ids"))
    if pc.any(pc.equal(lengths, 0)).as_py():
        rows = rows.select([index for index, length in enumerate(lengths.to_pylist()) if length])
    return rows.remove_columns(list(COUNTS))


def _encoded(
    rows: Sequence[Mapping[str, Any]], indices: Sequence[int], tokenizer: Any, max_length: int, packing: bool
) -> list[Encoded]:
    try:
        return (pack_rows if packing else encode_rows)(rows, tokenizer, max_length)
    except DataError:
        for index, row in zip(indices, rows, strict=True):
            try:
                encode_rows([row], tokenizer, UNLIMITED)
            except DataError as error:
                raise RowError.of(error, index) from error
        raise


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the columns that are null in it; a null text stays, as an empty one."""
    return {name: value for name, value in row.items() if value is not None or name == "text"}


def _until(row: Encoded, length: int) -> Encoded:
    return Encoded(row.ids[:length], row.labels[:length], row.positions and row.positions[:length])


def _is_empty(row: Mapping[str, Any]) -> bool:
    return not row["text"] if "text" in row else not row.get("input_ids", True)
