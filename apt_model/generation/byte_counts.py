"""How many bytes of text the scored tokens of a row stand for: what bits per byte are counted over.

Knows tokenizers; knows nothing of models or losses.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.data.encode import IGNORED

REPLACEMENT = "\ufffd"  # how tokenizers decode bytes that are no whole character


def scored_bytes(batch: Batch, tokenizer: Any) -> Tensor:
    """UTF-8 bytes of the text of each row's scored tokens, (B,), int64.

    Scored is what has a label and a token before it: neither a given prompt nor the very first token counts. Special
    tokens have no text and count no byte, though their nats are in the loss. A character that is split over tokens
    counts where its last byte is, whole; one that a row's end cuts off counts nothing.
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
    """Stretches that are scored, as (start, end)."""
    edges = torch.diff(scored.int(), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _length(ids: Sequence[int], tokenizer: Any) -> int:
    """Bytes of the text of a beginning, without a last character that is not whole."""
    if not ids:
        return 0
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    return len(text.rstrip(REPLACEMENT).encode("utf-8", "replace"))
