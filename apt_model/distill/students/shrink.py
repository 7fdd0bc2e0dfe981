"""Structured pruning: cut a student out of its teacher by layers, hidden size, heads and neurons.

Runs the steps in order, each in a file of its own: rank layers, collect activation statistics, choose what is kept,
write the weights, calibrate the norms. Knows nothing of training.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, get_args

import torch
from transformers import AutoModelForCausalLM

from apt_model.data.batch import Batch, to_batch
from apt_model.data.notices import untold
from apt_model.distill.students.activation_stats import Activity, watch_activity
from apt_model.distill.students.architecture import Architecture, architecture_of, layers_of, widths_of
from apt_model.distill.students.calibrate import calibrate_gains
from apt_model.distill.students.cut_weights import Cut, write_student
from apt_model.distill.students.depth import as_saved, even_layers, keep_layers
from apt_model.distill.students.fresh import MLP_WIDTHS, Method, Rank
from apt_model.distill.students.importance import best, best_heads, layers_by_angle, layers_by_loss, readings_of_loss
from apt_model.distill.students.principal_axes import busiest_channels, energy_kept, principal_axes
from apt_model.distill.students.widths import Widths, fit_widths, set_widths
from apt_model.errors import ConfigError, DataError, ModelError
from apt_model.models.generation_settings import inherit_settings

RANKED_TOKENS = 1_024  # tokens that `layers_by_loss` reads, since it reads them dozens of times


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """A student cut out of its teacher, with figures of the cut.

    Attributes:
        student: float32 (float64 for a teacher in float64), on the CPU, in eval mode, sharing no memory.
        layers: indices of the teacher's layers that it kept.
        energy_kept: the share of the normalised stream's squares that its hidden size keeps, 0..1; 1 if that was not
            cut.
        tokens: tokens of text that were read, without padding; 0 if no statistics were needed.
        seconds: wall time of all of it.
    """

    student: Any
    layers: tuple[int, ...]
    energy_kept: float
    tokens: int
    seconds: float


def shrink(
    teacher: Any,
    batches: Iterable[Any],
    *,
    tokenizer: Any = None,
    max_length: int = 512,
    num_layers: int | None = None,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    intermediate_size: int | None = None,
    method: Method = "rotate",
    rank: Rank = "even",
    progress: Callable[[int, int], None] | None = None,
) -> Shrunk:
    """Prune a teacher to a smaller model of its family that keeps its most important weights.

    Layers are dropped first; then the teacher reads the text with those that are left, and stream, heads and neurons
    are cut by their activations. Heads keep their size and are dropped by whole key-value groups if possible. Sizes
    that are not given are the teacher's, or in proportion to `hidden_size`. A student of its teacher's sizes has
    the same logits, bit for bit.

    Args:
        teacher: a loaded model of a family that `architecture` knows. It is left as it was.
        batches: a few of the training data, in any form that `to_batch` takes: some thousand tokens.
        tokenizer: for batches of text.
        max_length: of a text, in tokens.
        num_layers, hidden_size, num_attention_heads, intermediate_size: of the student.
        method: how the hidden size is cut. "rotate": the stream is rotated into its principal components and the
            weakest are dropped (SliceGPT, arXiv:2401.15024, with one rotation for all layers); "channels": those with
            the smallest squares behind the norms are dropped (Minitron, arXiv:2407.14679). A model with norms on its
            sublayers' outputs (Gemma 2 and 3) cannot be rotated.
        rank: which layers are kept. "even": evenly spaced; "importance": one after the other, the layer without which
            the loss is lowest is dropped (SLEB, arXiv:2402.09025); "angle": the block of layers that rotates the stream
            least is dropped (arXiv:2403.17887).
        progress: called with batches read and batches to read.

    Raises:
        ModelError: an unknown family, or sizes that the teacher cannot be cut to. ConfigError: an unknown method or
            rank. DataError: no text.
    """
    began = time.monotonic()
    _refuse_unknown(method, rank)
    architecture = architecture_of(teacher)
    full, head_size = widths_of(teacher, architecture)
    sizes = {"hidden": hidden_size, "heads": num_attention_heads, "neurons": intermediate_size}
    widths = fit_widths(full, head_size=head_size, free_heads=architecture.free_heads, **sizes)
    narrows = widths.hidden < full.hidden
    folds = method == "rotate" and narrows
    if folds and architecture.after:
        kind = teacher.config.model_type
        raise ModelError(
            "a model with norms on sublayer outputs cannot be rotated", got=kind, fix="use method=channels"
        )
    depth = len(layers_of(teacher, architecture))
    layers = even_layers(depth, num_layers)
    rank = rank if len(layers) < depth else "even"  # nothing to choose
    text, tokens = _read_text(batches, tokenizer, max_length)
    readings = len(text) * ((widths != full) + narrows) + _ranking_readings(text, rank, depth, len(layers))
    tick = _Clock(readings, progress)
    layers = layers if rank == "even" else _rank_layers(teacher, architecture, text, len(layers), rank=rank, tick=tick)
    seen, share = None, 1.0
    if widths != full:
        seen = watch_activity(teacher, architecture, text, kept=layers, head_size=head_size, tick=tick)
    cut = _choose(seen, full, widths, layers, teacher.device, folds=folds, keep_mean=architecture.norm == "layer")
    student = _new_student(teacher, architecture, cut, widths, head_size)
    write_student(teacher, student, architecture, cut, widths=full, head_size=head_size)
    if seen is not None and narrows:
        calibrate_gains(teacher, student, architecture, cut, text, tick=tick)
        share = energy_kept(seen.covariance, cut.axes)
    return Shrunk(
        student=student.cpu(),
        layers=layers,
        energy_kept=share,
        tokens=tokens if readings else 0,
        seconds=time.monotonic() - began,
    )


def _refuse_unknown(method: str, rank: str) -> None:
    for name, value, known in (("method", method, Method), ("rank", rank, Rank)):
        if value not in get_args(known):
            raise ConfigError(f"{name} is unknown", got=repr(value), expected=" or ".join(get_args(known)))


def _read_text(batches: Iterable[Any], tokenizer: Any, max_length: int) -> tuple[list[Batch], int]:
    """The batches collated, and how many tokens they hold."""
    text = [to_batch(one, tokenizer=tokenizer, max_length=max_length, tell=untold).apart for one in batches]
    tokens = sum(int(batch.attention_mask.sum()) for batch in text)
    if not tokens:
        raise DataError(
            "no text to measure activations on", got=f"{len(text)} batches", fix="give a few batches of the data"
        )
    return text, tokens


def _ranking_readings(text: Sequence[Batch], rank: Rank, depth: int, keep: int) -> int:
    """How many batches a ranking of the layers reads."""
    if rank == "importance":
        return len(_first(text, RANKED_TOKENS)) * readings_of_loss(depth, keep)
    return len(text) if rank == "angle" else 0


def _rank_layers(
    teacher: Any, architecture: Architecture, text: Sequence[Batch], keep: int, *, rank: Rank, tick: Callable[[], None]
) -> tuple[int, ...]:
    if rank == "angle":
        return layers_by_angle(teacher, architecture, text, keep, tick=tick)
    return layers_by_loss(teacher, architecture, _first(text, RANKED_TOKENS), keep, tick=tick)


class _Clock:
    """Counts batches for the progress callback."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        if progress is not None and total:
            progress(0, total)

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _choose(
    seen: Activity | None,
    full: Widths,
    widths: Widths,
    layers: tuple[int, ...],
    device: Any,
    *,
    folds: bool,
    keep_mean: bool,
) -> Cut:
    """Choose what is kept by activation statistics; without them (None) everything is."""
    if seen is None:
        groups, heads, neurons = (
            dict.fromkeys(layers, torch.arange(count, device=device))
            for count in (full.groups, full.heads, full.neurons)
        )
        axes = torch.eye(full.hidden, dtype=torch.float64, device=device)
        return Cut(layers=layers, axes=axes, folds=False, loudness=1.0, groups=groups, heads=heads, neurons=neurons)
    if folds:
        axes = principal_axes(seen.covariance, widths.hidden, keep_mean=keep_mean)
    else:
        axes = busiest_channels(seen.channels, widths.hidden)
    loudness = (full.hidden / widths.hidden * energy_kept(seen.covariance, axes)) ** 0.5
    how = {"groups": widths.groups, "per_group": widths.per_group, "of": full.groups}
    by_layer = {index: best_heads(seen.heads[index], **how) for index in layers}
    return Cut(
        layers=layers,
        axes=axes,
        folds=folds,
        loudness=loudness if widths.hidden < full.hidden else 1.0,
        groups={index: groups for index, (groups, _) in by_layer.items()},
        heads={index: heads for index, (_, heads) in by_layer.items()},
        neurons={index: best(seen.neurons[index], widths.neurons) for index in layers},
    )


def _new_student(teacher: Any, architecture: Architecture, cut: Cut, widths: Widths, head_size: int) -> Any:
    """A fresh model of the student's sizes on the teacher's device; embeddings are tied if the teacher's are."""
    config = deepcopy(teacher.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    keep_layers(config, cut.layers)
    set_widths(config, widths, head_size=head_size, free_heads=architecture.free_heads, neuron_names=MLP_WIDTHS)
    config = as_saved(config)
    dtype = torch.float64 if teacher.dtype == torch.float64 else torch.float32
    student = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    inherit_settings(student, teacher)
    return student.eval().to(teacher.device)


def _first(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """The first rows of the batches that hold at least `tokens` tokens together."""
    chosen: list[Batch] = []
    for batch in batches:
        before = batch.attention_mask.sum(dim=1).cumsum(dim=0) - batch.attention_mask.sum(dim=1)
        rows = int((before < tokens).sum())
        if tokens > 0:
            chosen.append(batch.part(slice(rows)))
        tokens -= int(batch.attention_mask.sum())
    return chosen
