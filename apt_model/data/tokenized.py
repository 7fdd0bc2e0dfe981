"""Rows as tokens: what `datasets` maps over rows, and what is told of the rows that it cuts or leaves out.

Knows rows and the encoder; knows nothing of files or batches.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow
import pyarrow.compute as pc

from apt_model.data.columns import kind_of
from apt_model.data.encode import UNLIMITED, encode_rows
from apt_model.data.encoded import IGNORED, Encoded, as_columns
from apt_model.data.exact_json import without_null
from apt_model.data.notices import Tell
from apt_model.data.packing import pack
from apt_model.data.structure import RowError
from apt_model.data.token_rows import POSITIONS

EMPTY, CUT, UNLABELLED = "__empty__", "__cut__", "__unlabelled__"  # rows without a token; tokens cut off; 1: no label
NOTES = "__notes__"  # what else is to be told, in the first row of a batch
COUNTS = (EMPTY, CUT, UNLABELLED, NOTES)

Columns = dict[str, list[Any]]


def tokenized(
    batch: Mapping[str, Sequence[Any]],
    indices: Sequence[int],
    tokenizer: Any,
    max_length: int,
    packing: bool,
    structs: Collection[str] = (),
    code: str = "",
    stamps: Sequence[Any] = (),
) -> Columns:
    """Rows as `input_ids`, `labels` and, where they have their own, `position_ids`; in further columns what to tell.

    In the columns `structs`, whose objects are Arrow's, keys that are null are left out. A row without a token stays,
    so that it is counted; `counted` takes it out. `code` and `stamps` change nothing here: `datasets` keeps results by
    the arguments, and those of other code, or of rows that lie in changed files, are not to be found again.

    Raises:
        RowError: a row cannot be encoded; its index is that of `indices`.
    """
    filled = {name: list(map(without_null, values)) if name in structs else values for name, values in batch.items()}
    rows = [_present(dict(zip(filled, values, strict=True))) for values in zip(*filled.values(), strict=True)]
    notes: dict[str, None] = {}

    def note(key: str, /, **values: str | int | float) -> None:
        notes[json.dumps([key, values])] = None

    whole = _encoded(rows, indices, tokenizer, note)
    cut = [0 if packing or "input_ids" in batch else max(0, len(row.ids) - max_length) for row in whole]
    empty = [int(not row.ids) for row in whole]
    short = [row.until(max_length) if over else row for row, over in zip(whole, cut, strict=True)]
    unlabelled = [int(bool(row.ids) and set(row.labels[1:]) <= {IGNORED}) for row in short]
    if packing:  # blocks are no rows: the first one has the sums
        short = pack(whole, tokenizer, max_length) or [Encoded([], [])]
        rest = [0] * (len(short) - 1)
        empty, cut, unlabelled = ([sum(column), *rest] for column in (empty, cut, unlabelled))
    told = ["\n".join(notes), *[""] * (len(short) - 1)] if short else []
    with_positions = packing or not batch.keys().isdisjoint(POSITIONS)
    columns: Columns = {**as_columns(short, with_positions=with_positions)}
    return {**columns, EMPTY: empty, CUT: cut, UNLABELLED: unlabelled, NOTES: told}


def streamed(
    batch: Mapping[str, Sequence[Any]], indices: Sequence[int], tell: Tell, max_length: int, **how: Any
) -> Columns:
    """`tokenized` of a stream, which cannot be counted beforehand: each batch is told of, without empty rows."""
    columns = tokenized(batch, indices, max_length=max_length, **how)
    _tell({name: pyarrow.chunked_array([columns[name]]) for name in COUNTS}, len(indices), max_length, tell)
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
    _tell({name: table.column(name) for name in COUNTS}, count, max_length, tell)
    lengths = pc.list_value_length(table.column("input_ids"))
    if pc.any(pc.equal(lengths, 0)).as_py():
        rows = rows.select([index for index, length in enumerate(lengths.to_pylist()) if length])
    return rows.remove_columns(list(COUNTS))


def _tell(columns: Mapping[str, Any], count: int, max_length: int, tell: Tell) -> None:
    """Tell what the columns of counts say of so many rows."""
    tokens, without, unlearned = (pc.sum(columns[name]).as_py() or 0 for name in (CUT, EMPTY, UNLABELLED))
    if without:
        tell("rows_empty", count=without, rows=count)
    if tokens:
        cut = pc.sum(pc.greater(columns[CUT], 0)).as_py()
        tell("rows_cut", count=cut, rows=count, tokens=tokens, length=max_length)
    if unlearned:
        tell("rows_unlabelled", count=unlearned, rows=count, length=max_length)
    notes = {line for lines in pc.unique(columns[NOTES]).to_pylist() for line in lines.split("\n") if line}
    for key, values in map(json.loads, sorted(notes)):
        tell(key, **values)


def _encoded(rows: Sequence[Mapping[str, Any]], indices: Sequence[int], tokenizer: Any, tell: Tell) -> list[Encoded]:
    try:
        return encode_rows(rows, tokenizer, UNLIMITED, tell=tell)
    except RowError as error:
        raise RowError.of(error, indices[error.index], error.row) from error


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the columns that are null in it, but with those that make its kind."""
    needs = kind_of(row.keys()).needs
    return {name: value for name, value in row.items() if value is not None or name in needs}


def structs_of(features: Mapping[str, Any] | None) -> list[str]:
    """The columns that hold objects of Arrow's, not JSON."""
    return [name for name, feature in (features or {}).items() if _has_struct(feature)]


def _has_struct(feature: Any) -> bool:
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
    return isinstance(feature, Mapping) or (inner is not None and _has_struct(inner))
