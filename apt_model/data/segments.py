"""Segments of packed rows: texts that stand behind each other in one row, laid out as rows of their own, and put back.

Knows positions and masks; knows nothing of models, or of what the tokens are.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


def beginnings_of(position_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Where a text begins behind another in its row, (B, L) bool: positions no longer rise.

    Shapes: both inputs (B, L); padding must carry on the position before it.
    """
    begins = torch.zeros_like(attention_mask, dtype=torch.bool)
    begins[:, 1:] = (position_ids.diff(dim=1) <= 0) & (attention_mask[:, 1:] != 0)
    return begins


@dataclass(frozen=True, kw_only=True)
class Segments:
    """S texts of at most W tokens, in B rows of L tokens.

    Attributes:
        numbers: (B, L) int64, which text of its row a token belongs to, from 0; padding belongs to the one before.
        places: (S, W) int64, the index of each text's tokens in the B · L ones; 0 behind its end.
        is_text: (S, W) bool, False behind its end.
        back: (B · L) int64, the index of each token in the S · W ones; 0 for padding.
        is_packed: whether a row has several texts.
        is_dense: whether within a text each position is the one before plus 1, and padding is at a row's end only.
        is_plain: whether each text's positions are 0, 1, 2 …
    """

    numbers: Tensor
    places: Tensor
    is_text: Tensor
    back: Tensor
    is_packed: bool
    is_dense: bool
    is_plain: bool

    @classmethod
    def of(cls, position_ids: Tensor, attention_mask: Tensor) -> "Segments":
        """Find them; reads values, so call it while the tensors are on the CPU.

        Shapes: both inputs (B, L); padding must carry on the position before it.
        """
        numbers = beginnings_of(position_ids, attention_mask).cumsum(dim=1)
        rows = torch.arange(len(numbers), device=numbers.device).unsqueeze(1)
        taken = (attention_mask != 0).flatten().nonzero().flatten()  # of the B · L tokens, those that are text
        texts = (rows * numbers.shape[1] + numbers).flatten()[taken]
        is_first = texts.diff(prepend=texts[:1] - 1) != 0
        text = is_first.cumsum(dim=0) - 1  # which of the S texts each of them belongs to
        counts = text.bincount()
        width = int(counts.max()) if len(counts) else 0
        within = torch.arange(len(taken), device=taken.device) - (counts.cumsum(0) - counts)[text]
        there = text * width + within
        places = taken.new_zeros(len(counts) * width).index_put((there,), taken).view(len(counts), width)
        is_text = torch.zeros_like(places, dtype=torch.bool).flatten().index_fill(0, there, 1).view_as(places)
        positions = position_ids.flatten()[taken]
        steps = torch.where(text.diff() == 0, positions.diff(), 1)
        is_padded_within = (attention_mask[:, 1:] > attention_mask[:, :-1]).any()
        return cls(
            numbers=numbers,
            places=places,
            is_text=is_text,
            back=torch.zeros_like(numbers).flatten().index_put((taken,), there),
            is_packed=bool(numbers.any()),
            is_dense=bool((steps == 1).all() and not is_padded_within),
            is_plain=bool((positions == within).all()),
        )

    def to(self, device: torch.device) -> "Segments":
        """The same on another device."""
        names = ("numbers", "places", "is_text", "back")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def lay_out(self, column: Tensor, padding: int) -> Tensor:
        """Values (B, L) of the tokens as (S, W), with `padding` behind the end of each text."""
        return column.flatten()[self.places].masked_fill(~self.is_text, padding)

    def put_back(self, rows: Tensor) -> Tensor:
        """What was computed of each text, (S, W, ...), in its place (B, L, ...); what stands at padding means nothing.

        Gradient flows.
        """
        return rows.flatten(0, 1).index_select(0, self.back).view(*self.numbers.shape, *rows.shape[2:])
