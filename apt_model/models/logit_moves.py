"""How far logits move between two readings of a model, and how far rounding may move them.

Knows logits and dtypes; knows nothing of why a model was read twice.
"""

import torch
from torch import Tensor, nn

# Mostly logits that must not move do not move at all; but experts round differently as they get one token more or less
# (by 2e-6 in float32), and 8-bit products choose their outliers over all tokens. An encoder with random weights moves
# by 1.5e-3 at 32 channels, by 2e-2 at 256.
FLOAT32, HALF, QUANTIZED = 1e-4, 1e-2, 5e-2


def largest_move(before: Tensor, after: Tensor) -> float:
    """Root mean square of the change of the logits at a position over that of the logits there; the largest one.

    Logits that are not finite, before or after, are left out.
    """
    is_known = before.isfinite() & after.isfinite()
    count = is_known.sum(dim=-1, keepdim=True).clamp(min=1)
    before, after = (logits.masked_fill(~is_known, 0) for logits in (before, after))
    centred = (before - before.sum(dim=-1, keepdim=True) / count).masked_fill(~is_known, 0)
    change, size = ((values.square().sum(dim=-1) / count.squeeze(-1)).sqrt() for values in (after - before, centred))
    return float((change / size.clamp(min=torch.finfo(torch.float32).tiny)).max())


def tolerance(model: nn.Module, mixed_precision: str) -> float:
    """How far logits may move by rounding, as a share of their own size; `mixed_precision`: "no", "bf16" or "fp16"."""
    if getattr(model, "is_quantized", False):
        return QUANTIZED
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    is_float32 = all(torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps for dtype in dtypes)
    return FLOAT32 if is_float32 and mixed_precision == "no" else HALF
