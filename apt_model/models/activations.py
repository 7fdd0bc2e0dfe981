"""What a model does before its last layer: hidden states and attention, seen in the same forward pass as the rest.

Knows how a transformers model can be watched; knows nothing of losses, batches, or of who is teacher and student.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from apt_model.data.rng import undisturbed
from apt_model.errors import ModelError
from apt_model.models.modes import in_eval_mode
from apt_model.models.output_head import NO_FORWARD


class Attended(NamedTuple):
    """What a layer's attention works with, positions turned in: (B, heads, L, d) each; heads and d may differ."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass
class Inside:
    """What was seen of a forward pass, by layer, the first being 1.

    Attributes:
        states: (B, L, H), what the layer hands on; of the last one, what the head gets.
        attended: of the layer's attention.
    """

    states: dict[int, Tensor] = field(default_factory=dict)
    attended: dict[int, Attended] = field(default_factory=dict)


class Watcher:
    """Watches a model, which is tried out on a few tokens first.

    Args:
        model: on its device; a wrapper around it (DistributedDataParallel) may call it.
        role: "teacher" or "student", for messages.
        states: whether hidden states are wanted.
        attention: whether attention is.

    Attributes:
        depth: layers of the model.
        layers: those to be watched, all of them at first.
        widths: of the hidden states, by layer.

    Raises:
        ModelError: the model does not show them.
    """

    def __init__(self, model: nn.Module, role: str, *, states: bool, attention: bool) -> None:
        self._model, self._role, self._wants_states, self._wants_attention = model, role, states, attention
        self._modules = set(model.modules())
        self.layers: Collection[int] | None = None
        seen = self._try_out()
        self.depth = max([*seen.states, *seen.attended], default=0)
        self.widths = {layer: tensor.shape[-1] for layer, tensor in seen.states.items()}
        if (states and not seen.states) or (attention and not seen.attended):
            what = "hidden states" if states and not seen.states else "attention"
            raise self._hides(what, type(model).__name__)

    @torch.no_grad()
    def _try_out(self) -> Inside:
        device = next(self._model.parameters()).device
        ids = torch.arange(3, device=device).unsqueeze(0)
        with undisturbed(device), in_eval_mode(self._model), self.watching() as seen:
            try:
                self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
            except NO_FORWARD as error:
                raise self._hides("layers", f"{type(error).__name__}: {error}"[:200]) from error
        return seen

    def _hides(self, what: str, got: str) -> ModelError:
        fix = "hidden_weight=0 and attention_weight=0, or a transformers model with attn_implementation=sdpa"
        return ModelError(f"the {self._role} does not show its {what}", got=got, fix=fix)

    @contextmanager
    def watching(self) -> Iterator[Inside]:
        """Inside, a forward pass of the model leaves what it does here; the pass itself is the same."""
        seen = Inside()
        with (
            self._watching_states(seen) if self._wants_states else nullcontext(),
            self._watching_attention(seen) if self._wants_attention else nullcontext(),
        ):
            yield seen

    @contextmanager
    def _watching_states(self, seen: Inside) -> Iterator[None]:
        def ask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "output_hidden_states": True}

        def look(module: nn.Module, args: Any, output: Any) -> None:
            states = getattr(output, "hidden_states", None) or ()
            for layer, tensor in enumerate(states[1:], start=1):  # the first is the embedding's
                if self.layers is None or layer in self.layers:
                    seen.states[layer] = tensor

        handles = (
            self._model.register_forward_pre_hook(ask, with_kwargs=True),
            self._model.register_forward_hook(look),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _watching_attention(self, seen: Inside) -> Iterator[None]:
        """Whatever a model is called and however its projections are laid out, it hands these three to the function
        that the registry has under its `attn_implementation`, except "eager"."""
        config: Any = getattr(self._model, "config", None)
        name = getattr(config, "_attn_implementation", None)
        if name not in ALL_ATTENTION_FUNCTIONS:
            raise self._hides("attention", f"attn_implementation={name}")
        own = ALL_ATTENTION_FUNCTIONS[name]

        def look(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            layer = getattr(module, "layer_idx", None)
            if module in self._modules and layer is not None and (self.layers is None or layer + 1 in self.layers):
                seen.attended[layer + 1] = Attended(query, key, value)
            return own(module, query, key, value, *args, **kwargs)

        ALL_ATTENTION_FUNCTIONS[name] = look  # hides the library's own function, or one that somebody has put there
        try:
            yield
        finally:
            with suppress(KeyError):  # a lesson in another thread was faster
                ALL_ATTENTION_FUNCTIONS.pop(name)
            if ALL_ATTENTION_FUNCTIONS.get(name) is not own:  # somebody's: pop has uncovered the library's
                ALL_ATTENTION_FUNCTIONS[name] = own
