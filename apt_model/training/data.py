"""Batches of any usual form as one form: token ids, attention mask, labels.

Knows nothing of models' insides, losses or lessons. Everything here happens on the CPU, before a batch is moved, so
that checking it costs no synchronisation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apt_model.errors import DataError

IGNORED = -100  # the label of a position that nothing is learned from, as in torch


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B rows of at most L tokens.

    Attributes:
        input_ids: (B, L), int64.
        attention_mask: (B, L), int64; 1 where there is text.
        labels: (B, L), int64; -100 where nothing is to be learned. Not shifted: logits at l predict labels at l + 1.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )

    @property
    def label_count(self) -> int:
        """Positions to learn from: labels other than -100, the first column (which nothing predicts) left out."""
        return int((self.labels[:, 1:] != IGNORED).sum())


def to_batch(raw: Any, *, tokenizer: Any = None, max_length: int = 512) -> Batch:
    """What a data loader yielded, as a `Batch`.

    Accepts a dict with `input_ids` (and `attention_mask`, `labels`) or with `text`; a tensor of ids; a tuple or list
    of tensors in the order (input_ids, attention_mask, labels); a list of strings, or one string. Missing labels are
    the ids wherever the mask is 1. Masking goes by the mask, never by the pad id, so that a real end-of-text is
    learned where both share an id. Other keys of a dict are left alone.

    Raises:
        DataError: another type, sizes that differ, ids that are no integers; names what was seen.
    """
    if isinstance(raw, Mapping):
        if "input_ids" in raw:
            return _from_tensors(raw["input_ids"], raw.get("attention_mask"), raw.get("labels"))
        if "text" in raw:
            return to_batch(raw["text"], tokenizer=tokenizer, max_length=max_length)
        raise DataError("batch has no input_ids", got=f"keys {sorted(map(str, raw))}", expected="input_ids or text")
    if isinstance(raw, str):
        return _from_texts([raw], tokenizer, max_length)
    if isinstance(raw, Tensor):
        return _from_tensors(raw, None, None)
    if isinstance(raw, Sequence) and raw:
        if all(isinstance(item, str) for item in raw):
            return _from_texts(raw, tokenizer, max_length)
        if len(raw) <= 3 and all(isinstance(item, Tensor) for item in raw):
            return _from_tensors(*raw, *[None] * (3 - len(raw)))
    inside = f" of {type(raw[0]).__name__}" if isinstance(raw, Sequence) and raw else ""
    raise DataError(
        "batch is of a type that cannot be learned from",
        got=f"{type(raw).__name__}{inside}",
        expected="a dict with input_ids, a tensor, (input_ids, attention_mask, labels), or a list of strings",
    )


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
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is no tensor", got=f"{type(value).__name__}: {error}") from error
    if tensor.is_floating_point() or tensor.is_complex():
        raise DataError(f"{name} is not of integers", got=str(tensor.dtype))
    if tensor.ndim == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise DataError(f"{name} has no rows of tokens", got=f"shape {tuple(tensor.shape)}", expected="(B, L)")
    return tensor.to(torch.int64)


def _from_texts(texts: Sequence[str], tokenizer: Any, max_length: int) -> Batch:
    if not callable(tokenizer):
        raise DataError(
            "batch is text, but there is no tokenizer that can encode it",
            got=f"tokenizer {type(tokenizer).__name__}",
            fix="pass a Hugging Face tokenizer, or batches of token ids",
        )
    rows = [torch.tensor(ids, dtype=torch.int64) for ids in encode(texts, tokenizer, max_length)]
    ids = pad_sequence(rows, batch_first=True, padding_value=getattr(tokenizer, "pad_token_id", None) or 0)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return _from_tensors(ids, mask, None)


def encode(texts: Sequence[str], tokenizer: Any, max_length: int, *, end: bool = True) -> list[list[int]]:
    """Token ids of each text: start token, text, end token, where the tokenizer has them; cut to `max_length`.

    A start token that the tokenizer knows but does not add itself is put before the text: models trained with one
    are lost without it.
    """
    bos = getattr(tokenizer, "bos_token_id", None)
    eos = getattr(tokenizer, "eos_token_id", None) if end else None
    rows = []
    for ids in tokenizer(list(texts), add_special_tokens=True)["input_ids"]:
        start = [bos] if bos is not None and ids[:1] != [bos] else []
        close = [eos] if eos is not None and ids[-1:] != [eos] else []
        row = [*start, *ids, *close][:max_length]
        if not row:
            raise DataError("an empty text has no tokens to learn from", fix="leave empty lines out")
        rows.append(row)
    return rows


def read_lines(paths: Sequence[str | Path]) -> list[str]:
    """The lines of UTF-8 text files, stripped; empty ones are left out.

    Raises:
        DataError: a file is missing, not UTF-8, or all are empty.
    """
    lines: list[str] = []
    for path in paths:
        try:
            lines += [line.strip() for line in Path(path).read_text("utf-8-sig").splitlines() if line.strip()]
        except OSError as error:
            raise DataError(f"data file {path} cannot be read", got=error.strerror) from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"data file {path} is not UTF-8", got=str(error), fix="convert it, e.g. with iconv"
            ) from error
    if not lines:
        raise DataError("no text to learn from", got=f"0 lines in {', '.join(map(str, paths))}")
    return lines


def refuse_other_tokenizer(teacher: Any, student: Any) -> None:
    """Refuse two tokenizers that give ids different meanings; a student without one learns the teacher's.

    Raises:
        DataError: names the first ids that differ.
    """
    if student is None or teacher is None:
        return
    taught, known = ({index: token for token, index in t.get_vocab().items()} for t in (teacher, student))
    differ = [index for index in sorted(taught.keys() | known.keys()) if taught.get(index) != known.get(index)]
    if differ:
        first = ", ".join(f"{index}: {taught.get(index)!r} and {known.get(index)!r}" for index in differ[:3])
        raise DataError(
            f"teacher and student have different tokenizers, {len(differ)} ids differ",
            got=first,
            fix="use a student with the teacher's tokenizer",
        )
