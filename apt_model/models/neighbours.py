"""Neighbours in a packed row, tried out: the logits of a text must not move when the one before it changes.

Knows one model and some tokens; knows nothing of batches, or of what the model is wanted for.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from apt_model.data.rng import undisturbed
from apt_model.models.logit_moves import largest_move, tolerance
from apt_model.models.modes import in_eval_mode

TOKENS = 8  # of each of the two texts
# How far the logits of a text may move when another text stands before it. A mask hides that one altogether, so mostly
# they do not move at all; only experts round differently (by 2e-6). A model with random weights that sees it moves by
# 1e-3 and more, in any precision; one that is taken wrongly for such only reads the texts in rows of their own.
HIDDEN = 1e-5

Logits = Callable[[Tensor, Tensor | None], Tensor]


def keeps_apart(model: nn.Module, logits: Logits, ids: Tensor) -> bool:
    """Whether a model keeps two texts in one row apart where positions begin anew, and reads each as it would alone.

    It reads some of the tokens as two texts in a row, and beside it a row with another first text: in eval mode and
    without gradient. Modes and generators stay as they were.

    Args:
        model: plain, without the wrapper of several processes.
        logits: `(token ids (B, L), positions (B, L) or None) -> logits (B, L, V)` of the model.
        ids: (N) int64, valid for the model, where it is; two at least.
    """
    first, second = ids[: len(ids) // 2][:TOKENS], ids[len(ids) // 2 :][:TOKENS]
    other = torch.where(first > 0, first - 1, 1)
    rows = torch.stack([torch.cat([text, second]) for text in (first, other)])
    places = torch.cat([torch.arange(len(text), device=ids.device) for text in (first, second)]).expand_as(rows)
    with undisturbed(ids.device), in_eval_mode(model):
        packed, alone = logits(rows, places)[:, len(first) :].float(), logits(second.unsqueeze(0), None)[0].float()
    is_cast = torch.is_autocast_enabled(ids.device.type)
    rounding = tolerance(model, "bf16" if is_cast else "no")
    return largest_move(packed[0], packed[1]) <= HIDDEN and largest_move(alone, packed[0]) <= rounding
