"""Activation statistics of a teacher on a few batches: residual stream, attention heads, MLP neurons.

Knows hooks and sums; knows nothing of what is kept or cut.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from apt_model.data.batch import Batch
from apt_model.distill.losses.metrics import row_sums
from apt_model.distill.students.architecture import Architecture, layers_of, matrix_of, normalised, stream_norms
from apt_model.models.modes import in_eval_mode
from apt_model.models.output_head import forward_of


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Activation statistics, summed over tokens and, for the stream, over all norms that read it.

    Attributes:
        covariance: (H, H), float64, sum of x xᵀ over the normalised stream x, before the norms' gains.
        channels: (H,), sum of squares of the norms' outputs, gains and biases included.
        heads: for each layer, (heads,): sum of squares of what each head adds to the stream.
        neurons: for each layer, (neurons,): the same of each neuron.
        tokens: how many were read.
    """

    covariance: Tensor
    channels: Tensor
    heads: dict[int, Tensor]
    neurons: dict[int, Tensor]
    tokens: int


@contextmanager
def reader(
    model: nn.Module, architecture: Architecture, without: Collection[int] = ()
) -> Iterator[Callable[[Batch], Tensor]]:
    """Context manager: a function from a batch to logits (B, L, V), in eval mode and without gradient.

    The layers in `without` are skipped: they return their input. The model is afterwards as it was.
    """
    device = next(model.parameters()).device

    def read(batch: Batch) -> Tensor:
        batch = batch.to(device)
        logits: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
        return logits

    def hand_through(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor | tuple[Tensor]:
        return (hidden_states,) if architecture.returns_tuple else hidden_states

    layers = layers_of(model, architecture)
    with in_eval_mode(model), ExitStack() as stack, torch.no_grad():
        for index in without:
            stack.enter_context(forward_of(layers[index], hand_through))
        yield read


def mean_loss(
    model: nn.Module,
    architecture: Architecture,
    batches: Sequence[Batch],
    *,
    without: Collection[int],
    tick: Callable[[], None],
) -> float:
    """Mean cross-entropy, nats a token, of the model without some of its layers; calls `tick` after each batch."""
    total = count = 0.0
    with reader(model, architecture, without) as read:
        for batch in batches:
            logits = read(batch)
            sums = row_sums(logits, batch.labels.to(logits.device))
            total, count = total + float(sums.ce.sum()), count + float(sums.tokens.sum())
            tick()
    return total / max(count, 1.0)


def watch_activity(
    model: Any,
    architecture: Architecture,
    batches: Sequence[Batch],
    *,
    kept: tuple[int, ...],
    head_size: int,
    tick: Callable[[], None],
) -> Activity:
    """Collect the statistics of the model with its kept layers alone; calls `tick` after each batch."""
    layers, sums = layers_of(model, architecture), _Sums(model, architecture, kept, head_size)
    with ExitStack() as stack:
        for _, norm in stream_norms(model, architecture, kept):
            stack.callback(norm.register_forward_hook(sums.see_stream).remove)
        for index in kept:
            out, mlp = (
                layers[index].get_submodule(name) for name in (architecture.attention_out, architecture.mlp_out)
            )
            stack.callback(out.register_forward_pre_hook(partial(sums.see_heads, index)).remove)
            stack.callback(mlp.register_forward_pre_hook(partial(sums.see_neurons, index)).remove)
        dropped = set(range(len(layers))) - set(kept)
        read = stack.enter_context(reader(model, architecture, dropped))
        for batch in batches:
            sums.begin(batch)
            read(batch)
            tick()
    return sums.activity()


class _Sums:
    """The statistics' sums; `see_...` are hooks, which add what the batch given to `begin` contributes."""

    def __init__(self, model: Any, architecture: Architecture, kept: tuple[int, ...], head_size: int) -> None:
        self._architecture, self._head_size = architecture, head_size
        self._device = next(model.parameters()).device
        self._width = matrix_of(model.get_submodule(architecture.embeddings[0])).shape[0]
        self._covariance = torch.zeros(self._width, self._width, dtype=torch.float64, device=self._device)
        self._channels = torch.zeros(self._width, dtype=torch.float64, device=self._device)
        self._heads: dict[int, Any] = dict.fromkeys(kept, 0)
        self._neurons: dict[int, Any] = dict.fromkeys(kept, 0)
        self._real = torch.zeros(0, dtype=torch.bool, device=self._device)  # (B · L), True for tokens, not padding
        self._tokens = 0

    def begin(self, batch: Batch) -> None:
        self._real = batch.attention_mask.to(self._device).reshape(-1) == 1
        self._tokens += int(self._real.sum())

    def see_stream(self, _: Any, inputs: Any, output: Tensor) -> None:
        seen = normalised(inputs[0].reshape(-1, self._width)[self._real], self._architecture)
        self._covariance.add_((seen.T @ seen).double())
        self._channels.add_(output.reshape(-1, self._width)[self._real].double().square().sum(0))

    def see_heads(self, index: int, module: Any, inputs: Any) -> None:
        found = inputs[0].reshape(len(self._real), -1, self._head_size)[self._real].float()  # (tokens, heads, size)
        by_head = matrix_of(module).float().reshape(self._width, -1, self._head_size)
        # |W x|² summed over tokens is the trace of WᵀW · xxᵀ: no (tokens, heads, H) is ever there
        grams = torch.einsum("whd,whe->hde", by_head, by_head) * torch.einsum("thd,the->hde", found, found)
        self._heads[index] += grams.sum((1, 2)).double()

    def see_neurons(self, index: int, module: Any, inputs: Any) -> None:
        squares = inputs[0].reshape(len(self._real), -1)[self._real].float().square().sum(0)
        self._neurons[index] += (squares * matrix_of(module).float().square().sum(0)).double()

    def activity(self) -> Activity:
        return Activity(
            covariance=self._covariance,
            channels=self._channels,
            heads=self._heads,
            neurons=self._neurons,
            tokens=self._tokens,
        )
