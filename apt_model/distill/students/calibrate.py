"""Calibrate a pruned student's norm gains: one least-squares factor for each norm, to match the teacher's outputs.

Knows both models' norms; knows nothing of how the student was made.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.distill.students.activation_stats import reader
from apt_model.distill.students.architecture import Architecture, gains_of, layers_of, normalised, stream_norms
from apt_model.distill.students.cut_weights import Cut, put_gains


@torch.no_grad()
def calibrate_gains(
    teacher: Any,
    student: Any,
    architecture: Architecture,
    cut: Cut,
    batches: Sequence[Batch],
    *,
    tick: Callable[[], None],
) -> None:
    """Multiply the gains of each of the student's norms by one factor, the best in the sense of least squares.

    Both models read the batches, the teacher with the kept layers alone. The student's gains begin at `Cut.loudness`,
    the same for all: here each norm gets its own share of the squares kept, and less where the student's stream has
    come away from the teacher's. (A factor for each channel was tried: better after deep cuts, worse after mild ones.)
    `tick` is called after each batch.
    """
    pairs = list(_norm_pairs(teacher, student, architecture, cut))
    fit = _LeastSquares(pairs, architecture, cut.axes)
    dropped = set(range(len(layers_of(teacher, architecture)))) - set(cut.layers)
    with ExitStack() as stack:
        for place, pair in enumerate(pairs):
            stack.callback(pair.teacher.register_forward_pre_hook(partial(fit.see_teacher, place)).remove)
            stack.callback(pair.student.register_forward_pre_hook(partial(fit.see_student, place)).remove)
        read_teacher = stack.enter_context(reader(teacher, architecture, dropped))
        read_student = stack.enter_context(reader(student, architecture))
        for batch in batches:
            fit.is_text = batch.attention_mask.flatten().to(cut.axes.device) == 1
            read_teacher(batch)  # first: the student's norms are compared with what the teacher's have left
            read_student(batch)
            tick()
    for pair, factor in fit.factors():
        put_gains(pair.student, gains_of(pair.student, architecture) * factor, architecture)


@dataclass(frozen=True, kw_only=True)
class _NormPair:
    """A norm of the student and the teacher's that it stands for.

    Attributes:
        folded: whether the teacher's gains went into the matrices behind the norm.
        scale: a factor on the teacher's output.
    """

    teacher: Any
    student: Any
    folded: bool
    scale: float


def _norm_pairs(teacher: Any, student: Any, architecture: Architecture, cut: Cut) -> Iterator[_NormPair]:
    """In the order in which the stream is read through them; the last norm comes last."""
    theirs = [norm for _, norm in stream_norms(teacher, architecture, cut.layers)]
    mine = [norm for _, norm in stream_norms(student, architecture, tuple(range(len(cut.layers))))]
    is_tied = student.get_output_embeddings().weight is student.get_input_embeddings().weight
    for their, own in zip(theirs, mine, strict=True):
        is_for_tied_head = is_tied and own is mine[-1]  # such a head cannot take gains: they are still in the last norm
        yield _NormPair(
            teacher=their,
            student=own,
            folded=cut.folds and not is_for_tied_head,
            scale=1 / cut.rescaling(architecture) if is_for_tied_head else 1.0,
        )


class _LeastSquares:
    """The factor a for each pair of norms that minimises Σ |a s − t|² over tokens: a = Σ s · t / Σ s · s.

    s is the output of the student's norm; t that of the teacher's, mapped by `axes` into the student's stream.

    Attributes:
        is_text: the tokens of the batch that both read next, in one row, that are no padding.
    """

    def __init__(self, pairs: Sequence[_NormPair], architecture: Architecture, axes: Tensor) -> None:
        self._pairs, self._architecture, self._axes = pairs, architecture, axes
        self._targets: dict[int, Tensor] = {}
        self._products = torch.zeros(len(pairs), dtype=torch.float64)
        self._squares = torch.zeros(len(pairs), dtype=torch.float64)
        self.is_text = torch.zeros(0, dtype=torch.bool)

    def see_teacher(self, place: int, norm: Any, inputs: Any) -> None:
        """A hook: t, before the biases. Gains that were folded into the student's matrices are no part of it."""
        pair, stream = self._pairs[place], self._stream_of(inputs)
        stream = stream if pair.folded else stream * gains_of(norm, self._architecture)
        self._targets[place] = pair.scale * stream @ self._axes.T

    def see_student(self, place: int, norm: Any, inputs: Any) -> None:
        """A hook: s, and its sums with the t of the same tokens."""
        own = self._stream_of(inputs) * gains_of(norm, self._architecture)
        self._products[place] += float((own * self._targets.pop(place)).sum())
        self._squares[place] += float(own.square().sum())

    def factors(self) -> Iterator[tuple[_NormPair, float]]:
        """a of each pair whose student's norm has put out anything."""
        for place, pair in enumerate(self._pairs):
            if self._squares[place] > 0:
                yield pair, float(self._products[place] / self._squares[place])

    def _stream_of(self, inputs: Any) -> Tensor:
        """The normalised stream (tokens, H) that enters a norm, before its gains."""
        return normalised(inputs[0].reshape(len(self.is_text), -1)[self.is_text], self._architecture).double()
