"""Cut a student out of its teacher: the layers, directions, heads and neurons that count, by a look at some text.

Knows how the parts play together; each of them is in a file of its own.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, get_args

import torch
from transformers import AutoModelForCausalLM

from apt_model.data.batch import Batch, to_batch
from apt_model.distill.students.activation_stats import Activity, watch_activity
from apt_model.distill.students.architecture import Anatomy, anatomy_of, layers_of, widths_of
from apt_model.distill.students.calibrate import calibrate_gains
from apt_model.distill.students.cut_weights import Cut, write_student
from apt_model.distill.students.fresh import MLP_WIDTHS, Method, Rank, even_layers, keep_layers
from apt_model.distill.students.importance import best, best_heads, layers_by_angle, layers_by_loss, readings_of_loss
from apt_model.distill.students.principal_axes import busiest_channels, energy_kept, principal_axes
from apt_model.distill.students.widths import Widths, fit_widths, set_widths
from apt_model.errors import ConfigError, DataError, ModelError

RANKED_TOKENS = 1_024  # that layers are dropped on in turn: they are read dozens of times


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """A student cut out of its teacher, and what was found on the way.

    Attributes:
        student: float32 (float64 for a teacher in float64), on the CPU, in eval mode, sharing no memory.
        layers: the teacher's layers that its layers were.
        energy_kept: the share of the normalised stream's squares that its width keeps, 0..1; 1 where it was not cut.
        tokens: text that was looked at, padding left out; 0 where nothing had to be.
        seconds: that all of it took.
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
    """A smaller model of the teacher's kind that begins with what counts of the teacher's weights.

    Layers go first; then the teacher reads the text with those that are left, and stream, heads and neurons are cut by
    what is seen. Heads keep their size and go by whole key-value groups where they can. Sizes that are not given are
    the teacher's, or in proportion to `hidden_size`. A student as large as its teacher says bit for bit the same.

    Args:
        teacher: a loaded model of a family that `distill.prune.anatomy` knows. It is left as it was.
        batches: a few, of what it is to be taught on, in any form that a data loader may yield: some thousand tokens.
        tokenizer: for batches of text.
        max_length: of a text, in tokens.
        num_layers, hidden_size, num_attention_heads, intermediate_size: of the student.
        method: how the width is cut. "rotate": the stream is turned into its principal components and the weakest are
            cut off (SliceGPT, arXiv:2401.15024, with one rotation for all layers); "channels": those that the norms
            put out least of are left out (Minitron, arXiv:2407.14679). A model with norms behind its sublayers
            (Gemma 2 and 3) cannot be turned.
        rank: which layers are kept. "even": evenly spaced; "importance": the least missed goes, then the next, by the
            loss without it (SLEB, arXiv:2402.09025); "angle": all but the block that turns the stream least
            (arXiv:2403.17887), in one reading.
        progress: called with batches read and batches to read.

    Raises:
        ModelError: another family, or sizes that the teacher cannot be cut to. ConfigError: an unknown method or rank.
        DataError: no text.
    """
    began = time.monotonic()
    for name, value, known in (("method", method, Method), ("rank", rank, Rank)):
        if value not in get_args(known):
            raise ConfigError(f"{name} is unknown", got=repr(value), expected=" or ".join(get_args(known)))
    anatomy = anatomy_of(teacher)
    full, head_size = widths_of(teacher, anatomy)
    asked = {"hidden": hidden_size, "heads": num_attention_heads, "neurons": intermediate_size}
    widths = fit_widths(full, head_size=head_size, free_heads=anatomy.free_heads, **asked)
    folds = method == "rotate" and widths.hidden < full.hidden
    if folds and anatomy.after:
        kind = teacher.config.model_type
        raise ModelError("norms behind its sublayers let no stream be turned", got=kind, fix="use method=channels")
    depth = len(layers_of(teacher, anatomy))
    layers = even_layers(depth, num_layers)
    ranks = rank != "even" and len(layers) < depth
    text = [to_batch(batch, tokenizer=tokenizer, max_length=max_length) for batch in batches]
    tokens = sum(int(batch.attention_mask.sum()) for batch in text)
    if not tokens:
        raise DataError("no text to look at", got=f"{len(text)} batches", expected="a few of the data's")
    few = _first(text, RANKED_TOKENS)
    readings = len(text) * ((widths != full) + (widths.hidden < full.hidden) + (ranks and rank == "angle"))
    readings += len(few) * readings_of_loss(depth, len(layers)) if ranks and rank == "importance" else 0
    tick = _Clock(readings, progress)
    if ranks and rank == "angle":
        layers = layers_by_angle(teacher, anatomy, text, len(layers), tick=tick)
    elif ranks:
        layers = layers_by_loss(teacher, anatomy, few, len(layers), tick=tick)
    seen = None
    if widths != full:
        seen = watch_activity(teacher, anatomy, text, kept=layers, head_size=head_size, tick=tick)
    cut = _choose(seen, full, widths, layers, teacher.device, folds=folds, keep_mean=anatomy.norm == "layer")
    student = _new_student(teacher, anatomy, cut, widths, head_size)
    write_student(teacher, student, anatomy, cut, widths=full, head_size=head_size)
    if widths.hidden < full.hidden:
        calibrate_gains(teacher, student, anatomy, cut, text, tick=tick)
    return Shrunk(
        student=student.cpu(),
        layers=layers,
        energy_kept=energy_kept(seen.covariance, cut.axes) if seen and widths.hidden < full.hidden else 1.0,
        tokens=tokens if readings else 0,
        seconds=time.monotonic() - began,
    )


class _Clock:
    """Counts batches, and says so."""

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
    """What is kept, by what was seen; all of it where nothing had to be."""
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


def _new_student(teacher: Any, anatomy: Anatomy, cut: Cut, widths: Widths, head_size: int) -> Any:
    """A fresh model of the student's sizes, where the teacher is. Embeddings that the teacher ties stay tied."""
    config = deepcopy(teacher.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    keep_layers(config, cut.layers)
    set_widths(config, widths, head_size=head_size, free_heads=anatomy.free_heads, neuron_names=MLP_WIDTHS)
    dtype = torch.float64 if teacher.dtype == torch.float64 else torch.float32
    student = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    return student.eval().to(teacher.device)


def _first(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """The first rows of text, so many that they hold about so many tokens."""
    chosen: list[Batch] = []
    for batch in batches:
        before = batch.attention_mask.sum(dim=1).cumsum(dim=0) - batch.attention_mask.sum(dim=1)
        rows = int((before < tokens).sum())
        if tokens > 0:
            parts = (batch.input_ids[:rows], batch.attention_mask[:rows], batch.labels[:rows])
            chosen.append(Batch(input_ids=parts[0], attention_mask=parts[1], labels=parts[2]))
        tokens -= int(batch.attention_mask.sum())
    return chosen
