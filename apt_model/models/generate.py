"""Generate from a batch of prompts: greedy decoding for answers, sampling for on-policy training.

Knows `generate()` of transformers; knows nothing of how good an answer is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from apt_model.data.answering import turn_end
from apt_model.errors import DataError, ModelError
from apt_model.models.devices import device_of
from apt_model.models.directory import CONFIG
from apt_model.models.forward import limits
from apt_model.models.lora import has_adapters
from apt_model.models.reading import running
from apt_model.models.sharding import is_sharded

Prompt = Sequence[int]
FIX = f"check its {CONFIG}, or set card_text=predicted and no exam_prompts, and leave on_policy out"


def answer(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, max_new_tokens: int, role: str = "student"
) -> list[str]:
    """Greedy answers to prompts as text, special tokens and outer whitespace left out; errors as in `answer_ids`."""
    answers = answer_ids(model, tokenizer, prompts, max_new_tokens=max_new_tokens, role=role)
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]


def answer_ids(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, max_new_tokens: int, role: str = "student"
) -> list[list[int]]:
    """Greedy answers to prompts as token ids, without the token that ends them, at most `max_new_tokens` long.

    Greedy whatever the model's `generation_config` says (sampling, beams, penalties). Prompts are padded on the left.
    A prompt that leaves fewer than `max_new_tokens` positions is answered alone, with the positions that are left.

    Raises:
        ModelError: the model has no `generate()`, or it cannot run.
        DataError: a prompt fills all positions of the model, or has tokens that it does not know.
    """
    if not hasattr(model, "generate"):
        fix = "set max_new_tokens=0 to leave the answers out"
        raise ModelError(f"the {role} cannot answer prompts", got=type(model).__name__, expected="generate()", fix=fix)
    vocabulary, positions = limits(model)
    highest = max((max(prompt, default=0) for prompt in prompts), default=0)
    if vocabulary is not None and highest >= vocabulary:
        fix = "encode the prompts with the model's own tokenizer"
        expected = f"below {vocabulary}"
        raise DataError(f"token id outside the {role}'s vocabulary", got=highest, expected=expected, fix=fix)
    answers = [list[int]() for _ in prompts]
    for group in _groups(prompts, max_new_tokens, positions):
        longest = max(len(prompts[index]) for index in group)
        room = max_new_tokens if positions is None else min(max_new_tokens, positions - longest)
        if room < 1:
            raise DataError(
                f"a prompt is too long for the {role}", got=f"{longest} tokens", expected=f"below {positions}"
            )
        rows = generate(model, tokenizer, [prompts[index] for index in group], new_tokens=room)
        for index, ids in zip(group, rows, strict=True):
            answers[index] = ids
    return answers


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, new_tokens: int, ends: bool = True
) -> list[list[int]]:
    """Greedy new tokens for each prompt: up to one of `end_ids`, or exactly `new_tokens` if not `ends`."""
    stops = end_ids(model, tokenizer) if ends else []
    rows = _new_tokens(model, tokenizer, prompts, stops, new_tokens=new_tokens, do_sample=False)
    return [row[: _end(row, stops)] for row in rows]


def draw(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    new_tokens: int,
    temperature: float,
    vocabulary: int | None = None,
) -> list[list[int]]:
    """Sample new tokens for each prompt from the model's full distribution, with torch's random generator.

    At most `new_tokens`; one of `end_ids` ends a row and is part of it, since ending here is a choice of the model that
    can be learned from. Ids from `vocabulary` on are never drawn.
    """
    stops = end_ids(model, tokenizer)
    width = getattr(model.get_output_embeddings(), "out_features", 0)
    rows = _new_tokens(
        model,
        tokenizer,
        prompts,
        stops,
        new_tokens=new_tokens,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        remove_invalid_values=True,  # NaN logits are found by the loss, and must not raise in here
        suppress_tokens=list(range(vocabulary, width)) or None if vocabulary is not None else None,
    )
    return [row[: _end(row, stops) + 1] for row in rows]


def _new_tokens(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], stops: list[int], *, new_tokens: int, **settings: Any
) -> list[list[int]]:
    """Run `generate()` on left-padded prompts; each row is its new tokens, with padding behind their end."""
    pad = getattr(tokenizer, "pad_token_id", None)
    vocabulary = limits(model)[0]
    known = [one for one in (pad, *stops) if one is not None and (vocabulary is None or 0 <= one < vocabulary)]
    pad = next(iter(known), 0)
    longest = max(map(len, prompts))
    place = device_of(model)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=place)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=place)
    config = GenerationConfig(eos_token_id=stops or None, pad_token_id=pad, **settings)  # type: ignore[no-untyped-call]
    with _settings(model, config), running(model, f"{type(model).__name__} cannot generate", FIX):
        # not `synced_gpus`, which transformers assumes of a sharded model: other processes may generate nothing now
        apart = {"synced_gpus": False} if is_sharded(model) else {}
        found = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, **apart)
        rows: list[list[int]] = found[:, longest:].tolist()
    return rows


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Token ids that end an answer: EOS of `generation_config` and tokenizer, the chat template's end of a turn."""
    eos = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    known = [*(eos if isinstance(eos, list) else [eos]), getattr(tokenizer, "eos_token_id", None), turn_end(tokenizer)]
    return sorted({token for token in known if token is not None})


@contextmanager
def _settings(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Context manager: these settings are the model's `generation_config`, which is restored at the end.

    `generate()` fills whatever a passed config leaves open from the model's own, so that one is replaced. A PEFT model
    copies its config to its base model, whose config is restored too.
    """
    holders = [model, model.get_base_model()] if has_adapters(model) else [model]
    saved = [holder.generation_config for holder in holders]
    model.generation_config = settings
    try:
        yield
    finally:
        for holder, before in zip(holders, saved, strict=True):
            holder.generation_config = before


def _end(ids: list[int], stops: Sequence[int]) -> int:
    """Index of the first of `stops`; the length if there is none."""
    return next((at for at, token in enumerate(ids) if token in stops), len(ids))


def _groups(prompts: Sequence[Prompt], new_tokens: int, positions: int | None) -> Iterator[list[int]]:
    """Batches of prompt indices: all that leave room for `new_tokens`, then the others one by one."""
    fits = [positions is None or len(prompt) + new_tokens <= positions for prompt in prompts]
    together = [index for index, fit in enumerate(fits) if fit]
    if together:
        yield together
    yield from ([index] for index, fit in enumerate(fits) if not fit)
