"""Batches of any usual form as one form: token ids, attention mask, labels.

Knows nothing of files, models' insides, losses or lessons. Everything here happens on the CPU, before a batch is
moved, so that checking it costs no synchronisation.
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
    """Which of the B · L positions predict a label that is not -100, (N) int64, ascending; the label is one further.

    Shapes: labels (B, L), not shifted.
    """
    return F.pad(labels[:, 1:] != IGNORED, (0, 1)).flatten().nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class TeachersRows:
    """The rows of a batch in the tokens of a teacher that has a tokenizer of its own: B rows of at most M tokens.

    Attributes:
        input_ids: (B, M), int64.
        attention_mask: (B, M), int64.
        spans: (S, 5), int64: of each stretch of text that both learn of, the row, the first of the student's tokens and
            how many they are, the first of the teacher's and how many they are. None begins a row.
    """

    input_ids: Tensor
    attention_mask: Tensor
    spans: Tensor

    def to(self, device: torch.device) -> "TeachersRows":
        """The same on another device."""
        return TeachersRows(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            spans=self.spans.to(device, non_blocking=True),
        )

    def covers(self, length: int) -> Tensor:
        """Which of the student's tokens are in a span, (B, `length`), bool."""
        row, first, count = self.spans[:, :3].unbind(dim=1)
        edges = torch.zeros(len(self.input_ids), length + 1, dtype=torch.int64, device=self.spans.device)
        edges.index_put_((row, first), torch.ones_like(row), accumulate=True)
        edges.index_put_((row, first + count), -torch.ones_like(row), accumulate=True)
        return edges.cumsum(dim=1)[:, :length] > 0

    def up_to(self, row: int, prompt: list[int]) -> tuple[list[int], list[int]]:
        """As much of a row's first tokens, the student's and the teacher's, as is the same text; both may be empty."""
        own = self.spans[self.spans[:, 0] == row]
        met = own[own[:, 1] <= len(prompt)]
        if not len(met):
            return [], []
        _, first, _, theirs, _ = met[met[:, 1].argmax()].tolist()
        return prompt[:first], self.input_ids[row, :theirs].tolist()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B rows of at most L tokens.

    Attributes:
        input_ids: (B, L), int64.
        attention_mask: (B, L), int64; 1 where there is text.
        labels: (B, L), int64; -100 where nothing is to be learned. Not shifted: logits at l predict labels at l + 1.
        teachers: the same rows in the teacher's tokens, where these are others.
        is_written: whether the labels are what the student wrote itself, so that only the teacher can judge them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    teachers: TeachersRows | None = None
    is_written: bool = False

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            teachers=self.teachers and self.teachers.to(device),
            is_written=self.is_written,
        )

    @property
    def label_count(self) -> int:
        """Positions to learn from: labels other than -100, the first column (which nothing predicts) left out."""
        return int((self.labels[:, 1:] != IGNORED).sum())


def to_batch(raw: Any, *, tokenizer: Any = None, max_length: int = 512, teacher_tokenizer: Any = None) -> Batch:
    """What a data loader yielded, as a `Batch`.

    Accepts a dict with `input_ids` (and `attention_mask`, `labels`); a tensor of ids; a tuple or list of tensors in
    the order (input_ids, attention_mask, labels); a list of strings, or one string; a dict of lists, or a list of
    dicts (`collate_fn=list`), with the columns that `encode_rows` takes. Missing labels are the ids wherever the mask
    is 1. Masking goes by the mask, never by the pad id, so that a real end-of-text is learned where both share an id.
    Other keys of a dict are left alone. Rows are padded on the right. With a `teacher_tokenizer` the rows come in its
    tokens as well, aligned with the student's: they have to be text then.

    Raises:
        DataError: another type, sizes that differ, ids that are no integers; names what was seen.
    """
    rows = rows_of(raw)
    if teacher_tokenizer is not None:
        return _from_both(rows or (), tokenizer, teacher_tokenizer, max_length)
    if rows is not None:
        return _from_rows(rows, tokenizer, max_length)
    if isinstance(raw, Mapping):
        if "input_ids" in raw:
            return _from_tensors(raw["input_ids"], raw.get("attention_mask"), raw.get("labels"))
        if "text" in raw:
            return to_batch(raw["text"], tokenizer=tokenizer, max_length=max_length)
        raise DataError("batch has no input_ids", got=f"keys {sorted(map(str, raw))}", expected="input_ids or text")
    if isinstance(raw, Tensor):
        return _from_tensors(raw, None, None)
    if isinstance(raw, Sequence) and 0 < len(raw) <= 3 and all(isinstance(item, Tensor) for item in raw):
        return _from_tensors(*raw, *[None] * (3 - len(raw)))
    inside = f" of {type(raw[0]).__name__}" if isinstance(raw, Sequence) and raw else ""
    raise DataError(
        "batch is of a type that cannot be learned from",
        got=f"{type(raw).__name__}{inside}",
        expected="a dict with input_ids, a tensor, (input_ids, attention_mask, labels), or a list of strings",
    )


def rows_of(raw: Any) -> Sequence[Mapping[str, Any]] | None:
    """The rows of a batch that is yet to be encoded; None where it is tensors, or nothing that we know."""
    if isinstance(raw, str):
        return [{"text": raw}]
    if isinstance(raw, Mapping) and "input_ids" not in raw:
        keys = [key for key in ("text", "messages", "prompt", "completion") if isinstance(raw.get(key), list | tuple)]
        if keys:
            lengths = {key: len(raw[key]) for key in keys}
            if len(set(lengths.values())) > 1:
                raise DataError("columns of a batch differ in length", got=lengths)
            return [dict(zip(keys, values, strict=True)) for values in zip(*(raw[key] for key in keys), strict=True)]
        return [{"text": raw["text"]}] if isinstance(raw.get("text"), str) else None
    if isinstance(raw, Sequence) and raw:
        if all(isinstance(item, str) for item in raw):
            return [{"text": text} for text in raw]
        if all(isinstance(item, Mapping) for item in raw):
            return raw
    return None


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
            "attention_mask is not 0 or 1",
            got=f"values up to {int(mask.max())}",
            fix="a second tensor is the mask; give labels as the third, or a dict",
        )
    return Batch(input_ids=ids, attention_mask=mask, labels=targets)


def _own_labels(ids: Tensor, mask: Tensor) -> Tensor:
    """The ids where there is text to predict them from: not padding, and not the first token after padding."""
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, 1:].masked_fill_(mask[:, :-1] == 0, IGNORED)
    return labels


def _as_rows(name: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises all three for what it cannot make one of
        raise DataError(f"{name} is no tensor", got=f"{type(value).__name__}: {error}") from error
    if tensor.is_floating_point() or tensor.is_complex():
        raise DataError(f"{name} is not of integers", got=str(tensor.dtype))
    if tensor.ndim == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise DataError(f"{name} has no rows of tokens", got=f"shape {tuple(tensor.shape)}", expected="(B, L)")
    return tensor.to(torch.int64)


def _from_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int) -> Batch:
    """Rows of different lengths; rows without a token are left out, and nothing but such has no label."""
    encoded = [(ids, labels) for ids, labels in encode_rows(rows, tokenizer, max_length) if ids]
    return _padded(encoded or [([0], [IGNORED])], tokenizer)


def _from_both(rows: Sequence[Mapping[str, Any]], tokenizer: Any, teacher_tokenizer: Any, max_length: int) -> Batch:
    """Rows in the student's tokens, padded, with the same rows in the teacher's."""
    if not rows or any("input_ids" in row for row in rows):
        fix = "give rows of text, chats, or prompts with completions"
        raise DataError("data is token ids, and the teacher's would be others", got="no text", fix=fix)
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
    """Optimizer steps in one pass; None where the data has no length."""
    try:
        return math.ceil(len(batches) / accumulation)  # type: ignore[arg-type]
    except TypeError:
        return None
