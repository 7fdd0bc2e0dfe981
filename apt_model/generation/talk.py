"""Let a model go on from a beginning, greedily. Knows nothing of training."""

from typing import Any

import torch

from apt_model.data.encode import UNLIMITED, encode
from apt_model.errors import DataError


def continue_text(model: Any, tokenizer: Any, prompt: str, *, max_new_tokens: int = 60) -> str:
    """The prompt and what the model makes of it, up to its end of text or `max_new_tokens`.

    Raises:
        DataError: there is no tokenizer, or the prompt fills all the positions that the model has.
    """
    if tokenizer is None:
        raise DataError("the model has no tokenizer", fix="save one beside it")
    (row,) = encode([prompt], tokenizer, UNLIMITED, end=False)
    room = (getattr(model.config, "max_position_embeddings", None) or 10**9) - len(row)
    if room < 1:
        raise DataError("the beginning is too long for the model", got=f"{len(row)} tokens", fix="begin with less")
    ids = torch.tensor([row], device=model.device)
    said = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=min(max_new_tokens, room),
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    text: str = tokenizer.decode(said[0], skip_special_tokens=True)
    return text
