"""Collate: turn whatever a DataLoader yields into one `Batch` of token ids, attention mask and labels.

Knows nothing of files, models, losses or lessons. Everything happens on the CPU, before the batch is moved to a
device, so that checking its values costs no synchronisation.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apt_model.data.dual_encode import Pair, encode_for_both
from apt_model.data.encode import IGNORED, encode_rows
from apt_model.errors import DataError


def learned_positions(labels: Tensor) -> Tensor:
    """Flat indices of the positions that predict a label, (N) int64, ascending.

    Position i predicts label i + 1; a label of -100 is not predicted.
    Shapes: labels (B, L), not shifted; indices are into the B · L positions.
    """
    return F.pad(labels[:, 1:] != IGNORED, (0, 1)).flatten().nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class TeachersRows:
    """The rows of a batch in the tokens of a teacher with another tokenizer: B rows of at most M tokens.

    Attributes:
        input_ids: (B, M), int64.
        attention_mask: (B, M), int64; 1 where there is text.
        spans: (S, 5), int64: for each aligned span of learned text its row, first student token, number of student
            tokens, first teacher token, number of teacher tokens. No span begins at the first token of a row, which
            nothing predicts.
    """

    input_ids: Tensor
    attention_mask: Tensor
    spans: Tensor

    def to(self, device: torch.device) -> "TeachersRows":
        """The same rows on another device."""
        return TeachersRows(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            spans=self.spans.to(device, non_blocking=True),
        )

    def covers(self, length: int) -> Tensor:
        """Which of the student's tokens are in a span, (B, `length`), bool."""
        row, first, count = self.spans[:, :3].unbind(dim=1)
        # +1 where a span begins, -1 behind its end: the running sum is above 0 exactly inside of spans
        edges = torch.zeros(len(self.input_ids), length + 1, dtype=torch.int64, device=self.spans.device)
        edges.index_put_((row, first), torch.ones_like(row), accumulate=True)
        edges.index_put_((row, first + count), -torch.ones_like(row), accumulate=True)
        return edges.cumsum(dim=1)[:, :length] > 0

    def begin(self, row: int) -> Tensor:
        """The student's tokens of a row at which a span begins, (N)."""
        return self.spans[self.spans[:, 0] == row, 1]

    def at(self, row: int, start: int, count: int) -> tuple[list[int], int]:
        """What the teacher reads before the span that begins at the student's token `start`, and how many of its tokens
        are in that span and those behind it, as far as they begin within `count` of the student's tokens.
        """
        spans = self.spans[self.spans[:, 0] == row]
        spans = spans[(spans[:, 1] >= start) & (spans[:, 1] < start + count)]
        first, end = int(spans[0, 3]), int(spans[-1, 3:].sum())
        return self.input_ids[row, :first].tolist(), end - first

    def up_to(self, row: int, prompt: list[int]) -> tuple[list[int], list[int]]:
        """The longest beginning of the prompt that is the same text in both tokenizers: student ids, teacher ids.

        Both are empty if no span of the row begins in the prompt or right behind it.
        """
        spans = self.spans[self.spans[:, 0] == row]
        inside = spans[spans[:, 1] <= len(prompt)]
        if not len(inside):
            return [], []
        _, first, _, teacher_first, _ = inside[inside[:, 1].argmax()].tolist()
        return prompt[:first], self.input_ids[row, :teacher_first].tolist()


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
        return Batch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            position_ids=None if self.position_ids is None else self.position_ids.to(device, non_blocking=True),
            teachers=self.teachers and self.teachers.to(device),
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


def to_batch(raw: Any, *, tokenizer: Any = None, max_length: int = 512, teacher_tokenizer: Any = None) -> Batch:
    """Collate what a DataLoader yielded into a `Batch`.

    Accepts a dict with `input_ids` (and `attention_mask`, `labels`); a tensor of ids; a tuple or list of tensors in
    the order (input_ids, attention_mask, labels); a list of strings, or one string; a dict of lists, or a list of
    dicts (`collate_fn=list`), with the columns that `encode_rows` takes. Missing labels are the ids wherever the mask
    is 1. Masking goes by the mask, never by the pad id, so that a real end-of-text is learned where both share an id.
    Other keys of a dict are ignored. Rows that are encoded here are padded on the right. With a
    `teacher_tokenizer` the rows, which then must be text, are encoded with it as well and aligned with the student's
    tokens.

    Raises:
        DataError: another type, shapes that differ, ids that are no integers; says what was seen.
    """
    rows = rows_of(raw)
    if teacher_tokenizer is not None:
        return _from_both(rows or (), tokenizer, teacher_tokenizer, max_length)
    if rows is not None:
        return _from_rows(rows, tokenizer, max_length)
    if isinstance(raw, Mapping):
        return _from_columns(raw, tokenizer, max_length)
    if isinstance(raw, Tensor):
        return _from_tensors(raw, None, None)
    if isinstance(raw, Sequence) and 0 < len(raw) <= 3 and all(isinstance(item, Tensor) for item in raw):
        return _from_tensors(*raw, *[None] * (3 - len(raw)))
    raise _unknown_type(raw)


def _from_columns(raw: Mapping[Any, Any], tokenizer: Any, max_length: int) -> Batch:
    if "input_ids" in raw:
        return _from_tensors(raw["input_ids"], raw.get("attention_mask"), raw.get("labels"))
    if "text" in raw:
        return to_batch(raw["text"], tokenizer=tokenizer, max_length=max_length)
    raise DataError(
        "batch has neither input_ids nor text", got=f"keys {sorted(map(str, raw))}", expected="input_ids or text"
    )


def _unknown_type(raw: Any) -> DataError:
    inside = f" of {type(raw[0]).__name__}" if isinstance(raw, Sequence) and raw else ""
    return DataError(
        "batch has a type that cannot be trained on",
        got=f"{type(raw).__name__}{inside}",
        expected="a dict with input_ids, a tensor, (input_ids, attention_mask, labels), or a list of strings",
    )


def rows_of(raw: Any) -> Sequence[Mapping[str, Any]] | None:
    """The rows of a batch that is not yet encoded, one dict a row; None for tensors or an unknown type.

    Raises:
        DataError: columns of different length.
    """
    if isinstance(raw, str):
        return [{"text": raw}]
    if isinstance(raw, Mapping) and "input_ids" not in raw:
        return _rows_of_columns(raw)
    if isinstance(raw, Sequence) and raw:
        if all(isinstance(item, str) for item in raw):
            return [{"text": text} for text in raw]
        if all(isinstance(item, Mapping) for item in raw):
            return raw
    return None


def _rows_of_columns(raw: Mapping[Any, Any]) -> list[dict[str, Any]] | None:
    keys = [key for key in ("text", "messages", "prompt", "completion") if isinstance(raw.get(key), list | tuple)]
    if not keys:
        return [{"text": raw["text"]}] if isinstance(raw.get("text"), str) else None
    lengths = {key: len(raw[key]) for key in keys}
    if len(set(lengths.values())) > 1:
        raise DataError("columns of a batch differ in length", got=lengths, expected="one value a row in each")
    return [dict(zip(keys, values, strict=True)) for values in zip(*(raw[key] for key in keys), strict=True)]


def _from_tensors(input_ids: Any, attention_mask: Any, labels: Any) -> Batch:
    ids = _as_rows("input_ids", input_ids)
    mask = torch.ones_like(ids) if attention_mask is None else _as_rows("attention_mask", attention_mask)
    targets = _own_labels(ids, mask) if labels is None else _as_rows("labels", labels)
    for name, tensor in (("attention_mask", mask), ("labels", targets)):
        if tensor.shape != ids.shape:
            raise DataError(
                f"input_ids and {name} differ in shape", got=f"{tuple(ids.shape)} and {tuple(tensor.shape)}"
            )
    if attention_mask is not None and ((mask != 0) & (mask != 1)).any():
        raise DataError(
            "attention_mask has values other than 0 and 1",
            got=f"values up to {int(mask.max())}",
            fix="in a tuple the second tensor is the mask: give labels as the third, or pass a dict",
        )
    return Batch(input_ids=ids, attention_mask=mask, labels=targets)


def _own_labels(ids: Tensor, mask: Tensor) -> Tensor:
    """The ids as labels, -100 for padding and for the first token after padding, which has no text before it."""
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, 1:].masked_fill_(mask[:, :-1] == 0, IGNORED)
    return labels


def _as_rows(name: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises all three for what it cannot make one of
        raise DataError(f"{name} cannot be made a tensor", got=f"{type(value).__name__}: {error}") from error
    if tensor.is_floating_point() or tensor.is_complex():
        raise DataError(f"{name} does not hold integers", got=str(tensor.dtype), expected="an integer dtype")
    if tensor.ndim == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise DataError(f"{name} has no rows of tokens", got=f"shape {tuple(tensor.shape)}", expected="(rows, tokens)")
    return tensor.to(torch.int64)


def _from_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int) -> Batch:
    """Encode and pad rows. Rows without a token are left out; if none is left, one token without a label."""
    encoded = [(row.ids, row.labels) for row in encode_rows(rows, tokenizer, max_length) if row.ids]
    return _padded(encoded or [([0], [IGNORED])], tokenizer)


def _from_both(rows: Sequence[Mapping[str, Any]], tokenizer: Any, teacher_tokenizer: Any, max_length: int) -> Batch:
    """Encode and pad rows with both tokenizers, and align them."""
    if not rows or any("input_ids" in row for row in rows):
        fix = "give rows of text, chats, or prompts with completions"
        raise DataError("token ids cannot be re-encoded for a teacher with another tokenizer", got="no text", fix=fix)
    pairs = [pair for row in rows if (pair := encode_for_both(row, tokenizer, teacher_tokenizer, max_length)).ids]
    if not pairs:
        pairs = [Pair(ids=[0], labels=[IGNORED], teachers=[0], spans=[])]
    batch = _padded([(pair.ids, pair.labels) for pair in pairs], tokenizer)
    theirs = _padded([(pair.teachers, pair.teachers) for pair in pairs], teacher_tokenizer)
    spans = [[row, *span] for row, pair in enumerate(pairs) for span in pair.spans]
    teachers = TeachersRows(
        input_ids=theirs.input_ids,
        attention_mask=theirs.attention_mask,
        spans=torch.tensor(spans, dtype=torch.int64).view(-1, 5),
    )
    return replace(batch, teachers=teachers)


def _padded(encoded: Sequence[tuple[list[int], list[int]]], tokenizer: Any) -> Batch:
    pad = getattr(tokenizer, "pad_token_id", None) or 0
    ids, mask, labels = (
        pad_sequence([torch.tensor(row, dtype=torch.int64) for row in column], batch_first=True, padding_value=value)
        for column, value in (
            ([ids for ids, _ in encoded], pad),
            ([[1] * len(ids) for ids, _ in encoded], 0),
            ([labels for _, labels in encoded], IGNORED),
        )
    )
    return _from_tensors(ids, mask, labels)


def steps_per_epoch(batches: Iterable[Any], accumulation: int) -> int | None:
    """Optimizer steps in one epoch; None if the data has no length."""
    try:
        return math.ceil(len(batches) / accumulation)  # type: ignore[arg-type]
    except TypeError:
        return None
