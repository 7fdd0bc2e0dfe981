"""Count the UTF-8 bytes of text that a row's scored tokens stand for, the denominator of bits per byte.

Knows tokenizers; knows nothing of models or losses.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED

REPLACEMENT = "\ufffd"  # what tokenizers decode an incomplete character to


def scored_bytes(batch: Batch, tokenizer: Any) -> Tensor:
    """UTF-8 bytes of the text of each row's scored tokens, (B,), int64.

    A token is scored if it has a label and a token before it: neither a prompt nor the first token of a row is. Special
    tokens have no text and count 0 bytes, though their nats are in the loss. A character split over tokens counts whole
    with the token that has its last byte; one that the row's end cuts off counts 0.
    """
    return torch.tensor(
        [_row_bytes(*row, tokenizer) for row in zip(batch.input_ids, batch.attention_mask, batch.labels, strict=True)]
    )


def _row_bytes(ids: Tensor, mask: Tensor, labels: Tensor, tokenizer: Any) -> int:
    scored = labels != IGNORED
    real = (mask == 1) | scored
    tokens = torch.where(scored, labels, ids)[real].tolist()
    scored[:1] = False  # nothing predicts the first column
    return sum(
        _length(tokens[:end], tokenizer) - _length(tokens[:start], tokenizer) for start, end in _runs(scored[real])
    )


def _runs(scored: Tensor) -> list[tuple[int, int]]:
    """Runs of consecutive scored tokens, as (start, end)."""
    edges = torch.diff(scored.int(), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _length(ids: Sequence[int], tokenizer: Any) -> int:
    """UTF-8 bytes that `ids` decode to, without an incomplete last character."""
    if not ids:
        return 0
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    return len(text.rstrip(REPLACEMENT).encode("utf-8", "replace"))
