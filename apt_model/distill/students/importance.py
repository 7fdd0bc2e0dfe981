"""Rank a teacher's layers, heads and neurons by importance, and choose those that a student keeps.

Knows activation statistics and losses; knows nothing of how weights are cut.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.distill.students.activation_stats import mean_loss, reader
from apt_model.distill.students.architecture import Architecture, layers_of


def layers_by_angle(
    model: Any, architecture: Architecture, batches: Sequence[Batch], count: int, *, tick: Callable[[], None]
) -> tuple[int, ...]:
    """Drop the block of consecutive layers with the smallest angle between its input and output; the layers kept.

    The angle is the mean over tokens of arccos(cosine) between the stream before the block and behind it. Reads the
    batches once.
    Source: Gromov et al. 2024, arXiv:2403.17887, section 3.2 (there, of each text's last token alone).
    """
    layers = layers_of(model, architecture)
    block = len(layers) - count
    angles = torch.zeros(count + 1, dtype=torch.float64)
    before: list[Tensor] = []
    real = torch.zeros(0, dtype=torch.bool)

    def see(_: Any, inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        output = output[0] if isinstance(output, tuple) else output
        """arccos(x · y / |x| |y|) / π between the stream now and a block of layers earlier, summed over tokens."""
        if not before:
            before.append(inputs[0].flatten(0, 1)[real].float())
        before.append(output.flatten(0, 1)[real].float())
        if len(before) > block:
            at = len(before) - 1 - block
            cosine = F.cosine_similarity(before[at], before[-1], dim=-1).clamp(-1, 1)
            angles[at] += float(cosine.arccos().sum()) / math.pi

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(see).remove)
        read = stack.enter_context(reader(model, architecture))
        device = next(model.parameters()).device
        for batch in batches:
            before.clear()
            real = batch.attention_mask.to(device).flatten() == 1
            read(batch)
            tick()
    first = int(angles.argmin())
    return tuple(index for index in range(len(layers)) if not first <= index < first + block)


def layers_by_loss(
    model: Any, architecture: Architecture, batches: Sequence[Batch], count: int, *, tick: Callable[[], None]
) -> tuple[int, ...]:
    """Greedily drop the layer without which the loss is lowest, until `count` are left; the layers kept.

    For each dropped layer the batches are read once for every layer still there.
    Source: Song et al. 2024, arXiv:2402.09025 (SLEB), algorithm 1.
    """
    kept = list(range(len(layers_of(model, architecture))))
    dropped: list[int] = []
    while len(kept) > count:
        losses = {
            index: mean_loss(model, architecture, batches, without=[*dropped, index], tick=tick) for index in kept
        }
        least = min(kept, key=lambda index: losses[index])
        kept.remove(least)
        dropped.append(least)
    return tuple(kept)


def readings_of_loss(layers: int, count: int) -> int:
    """How often `layers_by_loss` reads the batches: once for each layer left, at each removal."""
    return sum(range(count + 1, layers + 1))


def best(scores: Tensor, count: int) -> Tensor:
    """Indices (count,) of the highest scores, ascending."""
    return scores.topk(count).indices.sort().values


def best_heads(scores: Tensor, *, groups: int, per_group: int, of: int) -> tuple[Tensor, Tensor]:
    """Indices of the key-value heads kept and of the query heads kept, `per_group` query heads for each.

    Args:
        scores: (query heads,), of the teacher; the query heads of one key-value head are consecutive.
        groups: key-value heads of the student.
        per_group: query heads of the student for each of them.
        of: key-value heads of the teacher.
    """
    # a group counts as much as the query heads that would be kept of it
    by_group = scores.reshape(of, -1)
    chosen = by_group.topk(per_group, dim=1)
    kept_groups = best(chosen.values.sum(dim=1), groups)
    # from places within a group to places among all heads
    heads = chosen.indices[kept_groups] + kept_groups[:, None] * by_group.shape[1]
    return kept_groups, heads.sort(dim=1).values.flatten()
