"""Capture hidden states and attention inputs (query, key, value) of each layer during a model's forward pass.

Knows where a transformers model can be hooked; knows nothing of losses, batches, or of who is teacher and student.
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
from apt_model.models.devices import device_of
from apt_model.models.modes import in_eval_mode
from apt_model.models.output_head import NO_FORWARD


class AttentionInputs(NamedTuple):
    """The inputs of a layer's attention, rotary embedding applied: (B, heads, L, d) each; heads and d may differ."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass
class Activations:
    """Activations captured in one forward pass, by layer number from 1.

    Attributes:
        states: (B, L, H), the layer's output hidden states; for the last layer, the input of the head.
        attended: query, key and value of the layer's attention.
    """

    states: dict[int, Tensor] = field(default_factory=dict)
    attended: dict[int, AttentionInputs] = field(default_factory=dict)


class ActivationRecorder:
    """Records a model's activations; a forward pass over three tokens first shows which it has.

    Args:
        model: on its device; a wrapper around it (DistributedDataParallel) may call it.
        role: "teacher" or "student", for messages.
        states: capture hidden states.
        attention: capture query, key and value.

    Attributes:
        depth: number of layers of the model.
        layers: numbers of the layers to capture; None, at first, for all.
        widths: sizes of the hidden states, by layer.

    Raises:
        ModelError: the model does not expose them.
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
    def _try_out(self) -> Activations:
        device = device_of(self._model) or torch.device("cpu")
        ids = torch.arange(3, device=device).unsqueeze(0)
        with undisturbed(device), in_eval_mode(self._model), self.recording() as seen:
            try:
                self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
            except NO_FORWARD as error:
                raise self._hides("layers", f"{type(error).__name__}: {error}"[:200]) from error
        return seen

    def _hides(self, what: str, got: str) -> ModelError:
        fix = "set hidden_weight=0 and attention_weight=0, or use a transformers model with attn_implementation=sdpa"
        return ModelError(f"the {self._role} does not expose its {what}", got=got, fix=fix)

    @contextmanager
    def recording(self) -> Iterator[Activations]:
        """Context manager: a forward pass inside fills the yielded `Activations`, and computes the same as without."""
        seen = Activations()
        with (
            self._recording_states(seen) if self._wants_states else nullcontext(),
            self._recording_attention(seen) if self._wants_attention else nullcontext(),
        ):
            yield seen

    @contextmanager
    def _recording_states(self, seen: Activations) -> Iterator[None]:
        def request(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "output_hidden_states": True}

        def capture(module: nn.Module, args: Any, output: Any) -> None:
            states = getattr(output, "hidden_states", None) or ()
            for layer, tensor in enumerate(states[1:], start=1):  # states[0] is the embeddings'
                if self.layers is None or layer in self.layers:
                    seen.states[layer] = tensor

        handles = (
            self._model.register_forward_pre_hook(request, with_kwargs=True),
            self._model.register_forward_hook(capture),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _recording_attention(self, seen: Activations) -> Iterator[None]:
        """Wrap the attention function that transformers' registry has under the model's `attn_implementation`.

        Every model family passes it query, key and value, however its projections are laid out; only "eager" does not
        go through the registry.
        """
        config: Any = getattr(self._model, "config", None)
        name = getattr(config, "_attn_implementation", None)
        if name not in ALL_ATTENTION_FUNCTIONS:
            raise self._hides("attention", f"attn_implementation={name}")
        attention = ALL_ATTENTION_FUNCTIONS[name]

        def capture(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            layer = getattr(module, "layer_idx", None)
            if module in self._modules and layer is not None and (self.layers is None or layer + 1 in self.layers):
                seen.attended[layer + 1] = AttentionInputs(query, key, value)
            return attention(module, query, key, value, *args, **kwargs)

        ALL_ATTENTION_FUNCTIONS[name] = capture  # hides the library's, or one that somebody has put there
        try:
            yield
        finally:
            with suppress(KeyError):  # a lesson in another thread was faster
                ALL_ATTENTION_FUNCTIONS.pop(name)
            if ALL_ATTENTION_FUNCTIONS.get(name) is not attention:  # somebody's: pop has uncovered the library's
                ALL_ATTENTION_FUNCTIONS[name] = attention
