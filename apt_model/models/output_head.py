"""Find a causal language model's output head, and run the model up to the hidden states that enter it.

Knows what models do to their head's output (scale, soft-cap); knows nothing of losses, of teacher and student, or of
batches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import is_compiled_module
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PretrainedConfig

from apt_model.errors import ModelError
from apt_model.models.modes import in_eval_mode

SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")  # names in Cohere, Granite, ...
CAPS = ("final_logit_softcapping",)  # Gemma
STEEPEST = 50.0  # end of the probing ramp: far into the soft-cap of any known model
NO_FORWARD = (TypeError, ValueError, RuntimeError, LookupError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """The output head (`lm_head`) of a model: its last linear layer, and the scale and soft-cap on its output.

    `logits = cap(scale · (hidden @ weightᵀ + bias))`, where cap(x) = softcap · tanh(x / softcap), or x without one.

    Attributes:
        linear: weight (V, H), bias (V) or None; tied to the embedding or not, trained or frozen.
        scale: a factor on its output.
        softcap: the bound that logits approach but never reach.
    """

    linear: nn.Linear
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., H), as the model computes them."""
        return self.finish(self.linear(hidden))

    def finish(self, raw: Tensor) -> Tensor:
        """Logits from the linear layer's output: scaled, then soft-capped."""
        raw = raw * self.scale
        return raw if self.softcap is None else torch.tanh(raw / self.softcap) * self.softcap

    @contextmanager
    def bypassed(self) -> Iterator[list[Tensor]]:
        """Context manager: the head returns its input; the list gets the hidden states (B, L, H) of each forward pass.

        The model is called as usual, wrappers included, so that the hooks of DDP, accelerate's autocast and gradient
        checkpointing do their work; only the head's matrix product is left out. Calling the backbone directly would
        miss the wrappers and need its name and arguments; `logits_to_keep` still computes some logits, and truncates
        the hidden states as well.
        """
        seen: list[Tensor] = []

        def hand_through(hidden: Tensor) -> Tensor:
            seen.append(hidden)
            return hidden

        with forward_of(self.linear, hand_through):
            yield seen


def find_head(model: nn.Module) -> OutputHead | None:
    """The output head of a model, plain or inside DistributedDataParallel; None if the model cannot be split there.

    It can if the model names its head (`get_output_embeddings`, as in Hugging Face), the head is a plain linear layer
    without hooks, and only a known scale or soft-cap follows it. The last is tested: the model reads a few tokens while
    the head returns a known ramp, and the logits must be that ramp, scaled and capped. Random generators and the
    modules' modes are afterwards as they were.
    """
    model = model.module if isinstance(model, DistributedDataParallel) else model
    linear = _plain_head(model)
    if linear is None:
        return None
    try:
        ramp, logits = _probe(model, linear)
    except NO_FORWARD:
        return None
    tolerance = 1e-4 if linear.weight.dtype == torch.float32 else 2e-2
    for scale, softcap in _candidates(model):
        head = OutputHead(linear=linear, scale=scale, softcap=softcap)
        expected = head.finish(ramp.float())
        if logits.shape[-1:] == ramp.shape and torch.allclose(
            logits.float(), expected.expand_as(logits), rtol=tolerance, atol=tolerance
        ):
            return head
    return None


def _plain_head(model: nn.Module) -> nn.Linear | None:
    """The head that a model names, if it is a plain linear layer without hooks and the model is not compiled."""
    get_head = getattr(model, "get_output_embeddings", None)
    linear = get_head() if callable(get_head) else None
    if type(linear) is not nn.Linear or _is_hooked(linear) or is_compiled_module(model):
        return None
    return linear


def _is_hooked(linear: nn.Linear) -> bool:
    hooks = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
    stand_in = vars(linear).get("forward")
    is_replaced = stand_in is not None and not getattr(stand_in, "computes_the_same", False)
    return is_replaced or any(getattr(linear, name, None) for name in hooks)


@torch.no_grad()
def _probe(model: Any, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """A ramp (V), and the logits (1, L, V) that the model returns if its head returns the ramp."""
    weight = linear.weight
    ramp = torch.linspace(-STEEPEST, STEEPEST, len(weight), device=weight.device).to(weight.dtype)
    ids = torch.arange(min(3, len(weight)), device=weight.device).unsqueeze(0)
    devices = [weight.device] if weight.device.type == "cuda" else []
    calls: list[Tensor] = []

    def return_ramp(hidden: Tensor) -> Tensor:
        calls.append(hidden)
        return ramp.expand(*hidden.shape[:-1], -1)

    with in_eval_mode(model), torch.random.fork_rng(devices=devices), forward_of(linear, return_ramp):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    if len(calls) != 1 or calls[0].shape != (*ids.shape, linear.in_features):
        raise ValueError("the head is not called once, with the hidden states of all tokens")
    return ramp, logits


def _candidates(model: Any) -> Iterator[tuple[float, float | None]]:
    """All combinations of the scales and soft-caps that the model or its config names; a scale may also divide."""
    config = getattr(model, "config", None)
    text_config = config.get_text_config() if isinstance(config, PretrainedConfig) else None
    places = [model, getattr(model, "base_model", None), config, text_config]
    scales = [1.0]
    for number in _numbers(places, SCALES):
        scales += [number, 1 / number]
    for scale in scales:
        for cap in (None, *_numbers(places, CAPS)):
            yield scale, cap


def _numbers(places: list[Any], names: tuple[str, ...]) -> list[float]:
    found = [getattr(place, name, None) for place in places for name in names]
    return list(dict.fromkeys(float(n) for n in found if isinstance(n, int | float) and not isinstance(n, bool) and n))


@contextmanager
def forward_of(module: nn.Module, stand_in: Any) -> Iterator[None]:
    """Context manager: `module` runs `stand_in` as its `forward`; its hooks still fire."""
    before = vars(module).get("forward")
    module.forward = stand_in
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def unheard_tokens(model: nn.Module, tokenizer: Any) -> dict[int, str]:
    """The tokens of a tokenizer, by id, for which the model's head has no column; none if either tells nothing."""
    get_head, vocabulary = getattr(model, "get_output_embeddings", None), getattr(tokenizer, "get_vocab", None)
    head = get_head() if callable(get_head) else None
    columns = getattr(head, "out_features", None)
    if columns is None or not callable(vocabulary):
        return {}
    return {number: token for token, number in sorted(vocabulary().items()) if number >= columns}


def refuse_unheard(model: nn.Module, tokenizer: Any, role: str) -> None:
    """Refuse a tokenizer whose special tokens, or tokens of its chat template, have no column in the model's head.

    Other tokens without one, such as those for images in Gemma 3, may never occur: a row with one is refused by its id.

    Raises:
        ModelError: names the first of them and its id.
    """
    template = getattr(tokenizer, "chat_template", None)
    written = "".join(template.values()) if isinstance(template, dict) else template or ""
    special = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    for number, token in sorted(unheard_tokens(model, tokenizer).items()):
        if number in special or token in written:
            head: Any = model.get_output_embeddings()  # type: ignore[operator]
            raise ModelError(
                f"a token of the tokenizer has no column in the {role}'s head",
                got=f"{token!r}, id {number}, and {head.out_features} columns",
                fix=f"add columns with resize_token_embeddings({len(tokenizer)}), or give that token's part to another",
            )
