"""Complete a prompt with a model by greedy decoding. Knows nothing of training."""

from typing import Any

import torch

from apt_model.data.encode import UNLIMITED, encode
from apt_model.errors import DataError


def continue_text(model: Any, tokenizer: Any, prompt: str, *, max_new_tokens: int = 60) -> str:
    """The prompt with its greedy completion, up to an EOS token or `max_new_tokens`.

    Raises:
        DataError: there is no tokenizer, or the prompt fills all positions of the model.
    """
    if tokenizer is None:
        raise DataError("the model has no tokenizer", fix="save one into the model's directory")
    (row,) = encode([prompt], tokenizer, UNLIMITED, end=False)
    room = (getattr(model.config, "max_position_embeddings", None) or 10**9) - len(row)
    if room < 1:
        raise DataError("the prompt is too long for the model", got=f"{len(row)} tokens", fix="give a shorter prompt")
    ids = torch.tensor([row], device=model.device)
    completed = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=min(max_new_tokens, room),
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    text: str = tokenizer.decode(completed[0], skip_special_tokens=True)
    return text
