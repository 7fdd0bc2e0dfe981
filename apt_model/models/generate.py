"""How a model goes on from prompts, many at a time: greedily where it is asked, drawn where it practises.

Knows nothing of how good an answer is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from apt_model.errors import DataError, ModelError
from apt_model.models.forward import limits
from apt_model.models.lora import has_adapters

Prompt = Sequence[int]


def answer(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, max_new_tokens: int, role: str = "student"
) -> list[str]:
    """The model's own words after each prompt, as `answer_ids` finds them; special tokens and outer spaces left out."""
    said = answer_ids(model, tokenizer, prompts, max_new_tokens=max_new_tokens, role=role)
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said]


def answer_ids(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, max_new_tokens: int, role: str = "student"
) -> list[list[int]]:
    """The tokens that a model says after each prompt, up to its end of text or `max_new_tokens`.

    Greedy whatever the model's generation settings say (sampling, beams, penalties). Prompts are padded on the left.
    A prompt whose answer would not fit the model's positions is answered alone, in the room that is left.

    Raises:
        ModelError: the model cannot generate.
        DataError: a prompt fills all the positions that the model has.
    """
    if not hasattr(model, "generate"):
        fix = "max_new_tokens=0 leaves the answers out"
        raise ModelError(f"the {role} cannot answer prompts", got=type(model).__name__, expected="generate()", fix=fix)
    _, positions = limits(model)
    answers = [list[int]() for _ in prompts]
    for group in _groups(prompts, max_new_tokens, positions):
        longest = max(len(prompts[index]) for index in group)
        room = max_new_tokens if positions is None else min(max_new_tokens, positions - longest)
        if room < 1:
            raise DataError(
                f"a prompt is too long for the {role}", got=f"{longest} tokens", expected=f"below {positions}"
            )
        said = generate(model, tokenizer, [prompts[index] for index in group], new_tokens=room)
        for index, ids in zip(group, said, strict=True):
            answers[index] = ids
    return answers


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, new_tokens: int, ends: bool = True
) -> list[list[int]]:
    """Greedy tokens after each prompt, up to an end of text where it `ends`, else as many as were asked for."""
    stops = end_ids(model, tokenizer) if ends else []
    said = _go_on(model, tokenizer, prompts, stops, new_tokens=new_tokens, do_sample=False)
    return [row[: _end(row, stops)] for row in said]


def draw(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    new_tokens: int,
    temperature: float,
    vocabulary: int | None = None,
) -> list[list[int]]:
    """Tokens drawn after each prompt from the model's whole distribution, by torch's random generator.

    Up to `new_tokens`, or to an end of text and with it: that the model ends here is something it says. Ids from
    `vocabulary` on are never drawn.
    """
    stops = end_ids(model, tokenizer)
    width = getattr(model.get_output_embeddings(), "out_features", 0)
    said = _go_on(
        model,
        tokenizer,
        prompts,
        stops,
        new_tokens=new_tokens,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        remove_invalid_values=True,  # a model that has gone astray is found out by its loss, not in here
        suppress_tokens=list(range(vocabulary, width)) or None if vocabulary is not None else None,
    )
    return [row[: _end(row, stops) + 1] for row in said]


def _go_on(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], stops: list[int], *, new_tokens: int, **settings: Any
) -> list[list[int]]:
    """What `generate` makes of prompts that are padded on the left: the new tokens, and padding behind an end."""
    pad = getattr(tokenizer, "pad_token_id", None)
    pad = pad if pad is not None else next(iter(stops), 0)
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    config = GenerationConfig(eos_token_id=stops or None, pad_token_id=pad, **settings)  # type: ignore[no-untyped-call]
    with _settings(model, config):
        said: list[list[int]] = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens)[
            :, longest:
        ].tolist()
    return said


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a text, by the model's generation settings or by the tokenizer."""
    own = getattr(model.generation_config, "eos_token_id", None)
    known = [*(own if isinstance(own, list) else [own]), getattr(tokenizer, "eos_token_id", None)]
    return sorted({token for token in known if token is not None})


@contextmanager
def _settings(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """The model with these generation settings: `generate` takes what is not said from the model's own.

    A model with adapters hands them on to the one inside, which gets its own back, too.
    """
    holders = [model, model.get_base_model()] if has_adapters(model) else [model]
    own = [holder.generation_config for holder in holders]
    model.generation_config = settings
    try:
        yield
    finally:
        for holder, before in zip(holders, own, strict=True):
            holder.generation_config = before


def _end(ids: list[int], stops: Sequence[int]) -> int:
    """Where the first end of text stands, or would."""
    return next((at for at, token in enumerate(ids) if token in stops), len(ids))


def _groups(prompts: Sequence[Prompt], new_tokens: int, positions: int | None) -> Iterator[list[int]]:
    """Indices of prompts to answer together: all that leave room for a whole answer, then the others one by one."""
    fits = [positions is None or len(prompt) + new_tokens <= positions for prompt in prompts]
    together = [index for index, fit in enumerate(fits) if fit]
    if together:
        yield together
    yield from ([index] for index, fit in enumerate(fits) if not fit)
