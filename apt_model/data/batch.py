"""Collate: turn whatever a DataLoader yields into one `Batch` of token ids, attention mask, labels and positions.

Knows nothing of files, models, losses or lessons. Everything happens on the CPU, before the batch is moved to a
device, so that checking its values costs no synchronisation.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apt_model.data.columns import kind_of
from apt_model.data.dual_encode import Pair, encode_for_both
from apt_model.data.encode import UNLIMITED, encode_rows
from apt_model.data.encoded import IGNORED, Encoded, as_columns
from apt_model.data.notices import Tell, untold, warn
from apt_model.data.ready import FLATTENED, TAKEN, read_tensors
from apt_model.data.segments import Segments
from apt_model.data.teachers_rows import TeachersRows
from apt_model.data.token_rows import row_of_ids
from apt_model.errors import DataError


def learned_positions(labels: Tensor) -> Tensor:
    """Flat indices of the positions that predict a label, (N) int64, ascending.

    Position i predicts label i + 1; a label of -100 is not predicted.
    Shapes: labels (B, L), not shifted; indices are into the B · L positions.
    """
    return F.pad(labels[:, 1:] != IGNORED, (0, 1)).flatten().nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Token ids, attention mask and labels of B rows of at most L tokens.

    Attributes:
        input_ids: (B, L), int64.
        attention_mask: (B, L), int64; 1 where there is text.
        labels: (B, L), int64; -100 where nothing is to be learned. Not shifted: logits at l predict labels at l + 1.
        position_ids: (B, L), int64, or None: each row counts its tokens from 0. Where they begin anew within a row
            (packed rows), the tokens behind do not see those before.
        teachers: the same rows in the teacher's tokens, if it has another tokenizer.
        is_written: whether the labels are the student's own samples (on-policy): then they are no ground truth, and
            only the teacher can judge them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    position_ids: Tensor | None = None
    teachers: TeachersRows | None = None
    is_written: bool = False

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = Batch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            position_ids=None if self.position_ids is None else self.position_ids.to(device, non_blocking=True),
            teachers=self.teachers and self.teachers.to(device),
            is_written=self.is_written,
        )
        vars(moved)["segments"] = self.segments and self.segments.to(device)  # found where values cost no waiting
        return moved

    def part(self, rows: Any, columns: slice = slice(None)) -> "Batch":
        """Some of its rows, and of their columns, without the teacher's; `rows`: a slice, or indices."""
        return Batch(
            input_ids=self.input_ids[rows, columns],
            attention_mask=self.attention_mask[rows, columns],
            labels=self.labels[rows, columns],
            position_ids=None if self.position_ids is None else self.position_ids[rows, columns],
            is_written=self.is_written,
        )

    @cached_property
    def segments(self) -> Segments | None:
        """The texts that stand behind each other in its rows; None where all positions are usual."""
        return None if self.position_ids is None else Segments.of(self.position_ids, self.attention_mask)

    @property
    def apart(self) -> "Batch":
        """The same texts without packing: each in a row of its own, padded on the right."""
        segments = self.segments
        if segments is None or self.position_ids is None or not segments.is_packed:
            return self
        return Batch(
            input_ids=segments.lay_out(self.input_ids, 0),
            attention_mask=segments.is_text.to(torch.int64),
            labels=segments.lay_out(self.labels, IGNORED),
            position_ids=None if segments.is_plain else segments.lay_out(self.position_ids, 0),
            is_written=self.is_written,
        )

    @property
    def for_teacher(self) -> "Batch":
        """The rows as the teacher reads them: in its own tokens, each of them a label, if it has another tokenizer."""
        rows = self.teachers
        if rows is None:
            return self
        labels = rows.input_ids.masked_fill(rows.attention_mask == 0, IGNORED)
        return Batch(input_ids=rows.input_ids, attention_mask=rows.attention_mask, labels=labels)

    @property
    def label_count(self) -> int:
        """Number of labels other than -100, without the first column, which nothing predicts."""
        return int((self.labels[:, 1:] != IGNORED).sum())


def to_batch(
    raw: Any, *, tokenizer: Any = None, max_length: int = 512, teacher_tokenizer: Any = None, tell: Tell = warn
) -> Batch:
    """Collate what a DataLoader yielded into a `Batch`.

    Accepts a dict with `input_ids`, and what collators put beside them (see `read_tensors`); a tensor of ids; a tuple
    or list of tensors in the order (input_ids, attention_mask, labels); a list of strings, or one string; a dict of
    lists, or a list of dicts (`collate_fn=list`), with the columns that `encode_rows` or, of token ids, `row_of_ids`
    takes. Missing labels are the ids wherever the mask is 1. Masking goes by the mask, never by the pad id, so that a
    real end-of-text is learned where both share an id. Rows are padded on the right, those that came padded on the left
    too. With a `teacher_tokenizer` the rows, which then must be text, are encoded with it as well and aligned with the
    student's tokens.

    `tell` gets a notice of keys and columns that take no part, of the first row that is cut to `max_length`, that has
    no token or no label left.

    Raises:
        DataError: another type, shapes that differ, ids that are no integers; says what was seen.
    """
    rows = rows_of(raw)
    if rows is not None:
        _tell_unused(raw if isinstance(raw, Mapping) else rows, tell)
    if teacher_tokenizer is not None:
        return _from_both(rows or (), tokenizer, teacher_tokenizer, max_length, tell)
    if rows is not None:
        return _from_rows(rows, tokenizer, max_length, tell)
    if isinstance(raw, Mapping):
        return _from_tensors(raw, tell)
    if isinstance(raw, Tensor):
        return _from_tensors({"input_ids": raw}, tell)
    if isinstance(raw, Sequence) and 0 < len(raw) <= 3 and all(isinstance(item, Tensor) for item in raw):
        return _from_tensors(dict(zip(TAKEN[:3], raw, strict=False)), tell)
    raise _unknown_type(raw)


def _from_tensors(raw: Mapping[Any, Any], tell: Tell) -> Batch:
    columns = read_tensors(raw, tell)
    return Batch(
        input_ids=columns.ids, attention_mask=columns.mask, labels=columns.labels, position_ids=columns.positions
    )


def _unknown_type(raw: Any) -> DataError:
    inside = f" of {type(raw[0]).__name__}" if isinstance(raw, Sequence) and raw else ""
    return DataError(
        "batch has a type that cannot be trained on",
        got=f"{type(raw).__name__}{inside}",
        expected="a dict with input_ids, a tensor, (input_ids, attention_mask, labels), or a list of strings",
    )


def rows_of(raw: Any) -> Sequence[Mapping[str, Any]] | None:
    """The rows of a batch that is not yet in tensors, one dict a row; None for tensors or an unknown type.

    Raises:
        DataError: columns of different length, or none to learn from.
    """
    if isinstance(raw, str):
        return [{"text": raw}]
    if isinstance(raw, Mapping):
        return _rows_of_columns(raw) if "input_ids" not in raw or _are_rows(raw) else None
    if isinstance(raw, Sequence) and raw:
        if all(isinstance(item, str) for item in raw):
            return [{"text": text} for text in raw]
        if all(isinstance(item, Mapping) for item in raw):
            return raw
    return None


def _are_rows(raw: Mapping[Any, Any]) -> bool:
    """Whether a batch has lists of token ids, as a slice of a data set has them, not tensors of a collator."""
    ids, is_flattened = raw["input_ids"], not raw.keys().isdisjoint(FLATTENED)
    return (
        not is_flattened
        and isinstance(ids, list | tuple)
        and bool(ids)
        and all(isinstance(row, Sequence) or getattr(row, "ndim", 0) == 1 for row in ids)
    )


def _rows_of_columns(raw: Mapping[Any, Any]) -> list[dict[str, Any]]:
    keys = kind_of(raw.keys(), of="a batch").used(raw)
    if keys == ["text"] and isinstance(raw["text"], str):
        return [{"text": raw["text"]}]
    columns = {key: raw[key] for key in keys if raw[key] is not None}
    lengths = {key: len(column) if isinstance(column, list | tuple) else 0 for key, column in columns.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise DataError("columns of a batch differ in length", got=lengths, expected="a list with a value for each row")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _tell_unused(raw: Mapping[Any, Any] | Sequence[Mapping[str, Any]], tell: Tell) -> None:
    """Tell of keys that take no part in the kind of row that they stand in."""
    unused: dict[str, None] = {}
    for keys in [raw] if isinstance(raw, Mapping) else raw:
        used = kind_of(keys.keys(), of="a row").used(keys)
        unused |= dict.fromkeys(str(key) for key in keys if key not in used and keys[key] is not None)
    if unused:
        tell("keys_unused", keys=", ".join(unused))


def _from_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int, tell: Tell) -> Batch:
    """Encode and pad rows. Rows without a token are left out; if none is left, one token without a label."""
    found = [row for row in _encoded(rows, tokenizer, max_length, tell) if row.ids]
    return _padded(found or [Encoded([0], [IGNORED])], tokenizer)


def _encoded(rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int, tell: Tell) -> Iterator[Encoded]:
    """The rows in tokens: those of ids as they are, the others cut to `max_length`."""
    texts = [row for row in rows if "input_ids" not in row]
    from_texts = iter(encode_rows(texts, tokenizer, UNLIMITED, tell=tell) if texts else ())
    for number, row in enumerate(rows):
        if "input_ids" in row:
            whole = row_of_ids(row, f"row {number} of a batch", tell=tell)
            _tell_lost(number, whole, len(whole.ids), tell)
            yield whole
        else:
            whole = next(from_texts)
            _tell_lost(number, whole, max_length, tell)
            yield whole.until(max_length)


def _tell_lost(number: int, whole: Encoded, max_length: int, tell: Tell) -> None:
    """Tell of a row without a token, or whose end is cut off, or all that was to be learned of it."""
    if not whole.ids:
        tell("row_empty", row=number)
    elif len(whole.ids) > max_length:
        first = next((place for place, label in enumerate(whole.labels) if place and label != IGNORED), 0)
        key = "row_cut" if first < max_length else "row_unlearned"
        tell(key, row=number, tokens=len(whole.ids), max_length=max_length)


def _from_both(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, teacher_tokenizer: Any, max_length: int, tell: Tell
) -> Batch:
    """Encode and pad rows with both tokenizers, and align them."""
    if not rows or any("input_ids" in row for row in rows):
        fix = "give rows of text, chats, or prompts with completions"
        raise DataError("token ids cannot be re-encoded for a teacher with another tokenizer", got="no text", fix=fix)
    encoded = [encode_for_both(row, tokenizer, teacher_tokenizer, max_length, tell=tell) for row in rows]
    for number, pair in enumerate(encoded):
        _tell_lost(number, pair.whole, max_length, tell)
    pairs = [pair for pair in encoded if pair.ids]
    if not pairs:
        pairs = [Pair(whole=Encoded([0], [IGNORED]), ids=[0], labels=[IGNORED], teachers=[0], spans=[])]
    batch = _padded([Encoded(pair.ids, pair.labels) for pair in pairs], tokenizer)
    theirs = _padded([Encoded(pair.teachers, pair.teachers) for pair in pairs], teacher_tokenizer)
    spans = [[row, *span] for row, pair in enumerate(pairs) for span in pair.spans]
    teachers = TeachersRows(
        input_ids=theirs.input_ids,
        attention_mask=theirs.attention_mask,
        spans=torch.tensor(spans, dtype=torch.int64).view(-1, 5),
    )
    return replace(batch, teachers=teachers)


def _padded(rows: Sequence[Encoded], tokenizer: Any) -> Batch:
    pad = getattr(tokenizer, "pad_token_id", None) or 0
    columns = as_columns(rows, with_positions=any(row.positions is not None for row in rows))
    columns["attention_mask"] = [[1] * len(row.ids) for row in rows]
    filled = {"input_ids": pad, "labels": IGNORED}  # the others with 0
    return _from_tensors(
        {
            key: pad_sequence(
                [torch.tensor(row, dtype=torch.int64) for row in column],
                batch_first=True,
                padding_value=filled.get(key, 0),
            )
            for key, column in columns.items()
        },
        untold,
    )


def steps_per_epoch(batches: Iterable[Any], accumulation: int) -> int | None:
    """Optimizer steps in one epoch; None if the data has no length."""
    try:
        return math.ceil(len(batches) / accumulation)  # type: ignore[arg-type]
    except TypeError:
        return None
