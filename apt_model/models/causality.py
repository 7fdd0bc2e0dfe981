"""Causality of a language model, tried out: logits of earlier tokens must not move when the last token changes.

Knows one model and a row of tokens; knows nothing of losses, or of what the model is wanted for.
"""

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from apt_model.data.batch import Batch, to_batch
from apt_model.data.rng import undisturbed
from apt_model.errors import ModelError
from apt_model.models.devices import device_of
from apt_model.models.forward import Forward
from apt_model.models.logit_moves import largest_move, tolerance
from apt_model.models.modes import in_eval_mode

TOKENS = 8  # of the row: the fewer, the more an encoder's earlier logits depend on the last one
FIX = "take a decoder with a causal mask; BertLMHeadModel and its like have one with is_decoder=True in their config"


def refuse_not_causal(
    model: nn.Module, batch: Batch, *, role: str, device: torch.device, mixed_precision: str = "no"
) -> bool:
    """Refuse a model that sees the tokens it is to predict: an encoder, an encoder-decoder, one without a causal mask.

    The model reads the first tokens of the batch's longest row, then the same with another last token: in eval mode,
    without gradient, both times with the same state of the random generators. Modes and generators stay as they were.

    Args:
        model: if it is wrapped for several processes or compiled, the plain model is run.
        batch: in the model's own tokens, valid for it.
        role: "teacher" or "student", for messages.
        device: for a model without weights; others read where their weights are.
        mixed_precision: "no", "bf16" or "fp16": what the model's products are computed in.

    Returns:
        Whether it was tried: False where no row has two tokens.

    Raises:
        ModelError: logits before the last token moved, or the model is an encoder-decoder.
    """
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    name = type(model).__name__
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        what = f"the {role} is an encoder-decoder, whose encoder sees the tokens to predict"
        raise ModelError(what, got=name, expected="a causal language model", fix=FIX)
    rows = _two_rows(batch)
    if rows is None:
        return False
    moved = largest_move(*(_logits(model, ids, role, device_of(model) or device) for ids in rows))
    most = tolerance(model, mixed_precision)
    if moved > most:
        got = f"logits that move by {100 * moved:.2g}% when a token behind them changes ({name})"
        what = f"the {role} sees the tokens that it is to predict"
        raise ModelError(what, got=got, expected=f"at most {100 * most:g}%", fix=FIX)
    return True


def _two_rows(batch: Batch) -> tuple[Tensor, Tensor] | None:
    """The first tokens (L) of the longest row, without padding, and the same with another last token."""
    is_real = batch.attention_mask == 1
    row = int(is_real.sum(dim=1).argmax())
    ids = batch.input_ids[row][is_real[row]][:TOKENS]
    if len(ids) < 2:
        return None
    last, known = int(ids[-1]), batch.input_ids[is_real]
    others = known[known != last]
    other = int(others[0]) if len(others) else last - 1 if last else 1
    return ids, torch.cat([ids[:-1], ids.new_tensor([other])])


def _logits(model: nn.Module, ids: Tensor, role: str, device: torch.device) -> Tensor:
    """Logits (L - 1, V) before the last token, in float32."""
    with undisturbed(device), in_eval_mode(model):
        return Forward(model, role)(model, to_batch(ids).to(device))[0, :-1].float()
