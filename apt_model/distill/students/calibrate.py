"""Calibrate a pruned student's norm gains: one least-squares factor for each norm, to match the teacher's outputs.

Knows both models' norms; knows nothing of how the student was made.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.distill.students.activation_stats import reader
from apt_model.distill.students.architecture import Anatomy, gains_of, layers_of, normalised, stream_norms
from apt_model.distill.students.cut_weights import Cut, put_gains

Watch = Callable[[Any, Any], None]


@torch.no_grad()
def calibrate_gains(
    teacher: Any, student: Any, anatomy: Anatomy, cut: Cut, batches: Sequence[Batch], *, tick: Callable[[], None]
) -> None:
    """Multiply the gains of each of the student's norms by one factor, the best in the sense of least squares.

    Both models read the batches, the teacher with the kept layers alone; a norm of the student should put out what
    the teacher's puts out, mapped into the student's stream. Its gains begin at `Cut.loudness`, the same for all: here
    each norm gets its own share of what is kept, and less where the student's stream has come away from the teacher's.
    (A factor for each channel was tried: better after deep cuts, worse after mild ones.) `tick` is called after each
    batch.
    """
    theirs = [norm for _, norm in stream_norms(teacher, anatomy, cut.layers)]
    mine = [norm for _, norm in stream_norms(student, anatomy, tuple(range(len(cut.layers))))]
    folded, scales = [cut.folds] * len(mine), [1.0] * len(mine)
    if student.get_output_embeddings().weight is student.get_input_embeddings().weight:
        folded[-1] = False  # a tied head cannot take gains: they are still in the last norm
        scales[-1] /= cut.rescaling(anatomy)
    targets: dict[int, Tensor] = {}
    products, squares = torch.zeros(len(mine), dtype=torch.float64), torch.zeros(len(mine), dtype=torch.float64)
    real = torch.zeros(0, dtype=torch.bool)

    def stream_of(inputs: Any) -> Tensor:
        return normalised(inputs[0].reshape(len(real), -1)[real], anatomy).double()

    def see_teacher(place: int) -> Watch:
        def see(norm: Any, inputs: Any) -> None:
            seen = stream_of(inputs)
            seen = seen if folded[place] else seen * gains_of(norm, anatomy)
            targets[place] = scales[place] * seen @ cut.axes.T

        return see

    def see_student(place: int) -> Watch:
        def see(norm: Any, inputs: Any) -> None:
            seen = stream_of(inputs) * gains_of(norm, anatomy)
            products[place] += float((seen * targets.pop(place)).sum())
            squares[place] += float(seen.square().sum())

        return see

    dropped = set(range(len(layers_of(teacher, anatomy)))) - set(cut.layers)
    with ExitStack() as stack:
        for norms, see in ((theirs, see_teacher), (mine, see_student)):
            for place, norm in enumerate(norms):
                stack.callback(norm.register_forward_pre_hook(see(place)).remove)
        read_teacher = stack.enter_context(reader(teacher, anatomy, dropped))
        read_student = stack.enter_context(reader(student, anatomy))
        for batch in batches:
            real = batch.attention_mask.flatten().to(cut.axes.device) == 1
            read_teacher(batch)
            read_student(batch)
            tick()
    for place, norm in enumerate(mine):
        if squares[place] > 0:
            put_gains(norm, gains_of(norm, anatomy) * float(products[place] / squares[place]), anatomy)
