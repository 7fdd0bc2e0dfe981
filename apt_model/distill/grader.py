"""Both models on one batch: what they say, the loss, and its gradient; the row that a card shows is read on the way.

Knows how a batch is graded; knows nothing of optimizers, epochs or who listens.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from apt_model.config import DistillConfig
from apt_model.distill.forward import Forward
from apt_model.distill.losses import distillation_sums
from apt_model.distill.readout import CardRow, RowReadout, read_row
from apt_model.distill.sparse import SparseSignal, likeliest, sparse_distillation_sums
from apt_model.distill.teachers import TeacherSource
from apt_model.errors import ModelError
from apt_model.training.batch import Batch
from apt_model.training.encode import IGNORED

T = TypeVar("T", float, Tensor)
Signal = Tensor | SparseSignal


class Grader:
    """Grades a student against a teacher.

    Args:
        student: how the student is called.
        teacher: says what the teacher thinks of a batch.
        accelerator: places batches, casts, scales gradients.
        config: temperature and weights.
        say: is told of what the reader should know once.
    """

    def __init__(
        self,
        *,
        student: Forward,
        teacher: TeacherSource,
        accelerator: Accelerator,
        config: DistillConfig,
        say: Callable[..., None],
    ) -> None:
        self._forward, self._teacher = student, teacher
        self._accelerator, self._config, self._say = accelerator, config, say

    def check(self, batch: Batch) -> None:
        """Refuse a batch, still on the CPU, that one of the two cannot take."""
        self._forward.check(batch)
        self._teacher.check(batch)

    def weigh(self, kd: T, ce: T) -> T:
        """The loss: `alpha * kd + beta * ce`."""
        return self._config.alpha * kd + self._config.beta * ce

    def learn(
        self, student: nn.Module, batches: Sequence[Batch], rows: Sequence[CardRow | None], tokens: int
    ) -> tuple[Tensor, list[RowReadout | None]]:
        """Leave the gradient of the mean over `tokens` in the student.

        Args:
            student: the module, as it is wrapped for training.
            batches: of one optimizer step.
            rows: what to read from each of them, if anything.
            tokens: positions to learn from in the whole step, over all processes.

        Returns:
            The sums of KD and CE over this process's part, (2,), and what was read from each batch.
        """
        accelerator, readouts = self._accelerator, []
        sums = torch.zeros(2, device=accelerator.device)
        for left, batch, row in zip(reversed(range(len(batches))), batches, rows, strict=True):
            with nullcontext() if not left else accelerator.no_sync(student):
                own, theirs, moved = self.both(student, batch)
                kd, ce = self.sums(own, theirs, moved)
                accelerator.backward(self.weigh(kd, ce) * (accelerator.num_processes / tokens))
            sums += torch.stack([kd.detach(), ce.detach()])
            readouts.append(read_row(row, own.detach(), theirs) if row is not None else None)
        return sums, readouts

    def sums(self, own: Tensor, theirs: Signal, batch: Batch) -> tuple[Tensor, Tensor]:
        """KD and CE of a batch as sums over its labels."""
        if isinstance(theirs, SparseSignal):
            return sparse_distillation_sums(own, theirs, batch.labels)
        return distillation_sums(own, theirs, batch.labels, temperature=self._config.temperature)

    def agreed(self, own: Tensor, theirs: Signal, batch: Batch) -> Tensor:
        """At how many labels of a batch both find the same token likeliest."""
        has_label = batch.labels[:, 1:] != IGNORED
        students = own.argmax(-1)[:, :-1][has_label]
        if isinstance(theirs, SparseSignal):
            return (students == likeliest(theirs.rows)).sum()
        return (students == theirs.argmax(-1)[:, :-1][has_label]).sum()

    def both(self, student: nn.Module, batch: Batch) -> tuple[Tensor, Signal, Batch]:
        """The student's logits and the teacher's signal, cut to the vocabulary of both, and the batch where they are.

        Raises:
            ModelError: a student that is narrower than a cached vocabulary.
        """
        moved = batch.to(self._accelerator.device)
        with self._accelerator.autocast():
            theirs, own = self._teacher.signal(moved), self._forward(student, moved)
        width = theirs.width if isinstance(theirs, SparseSignal) else theirs.shape[-1]
        shared = min(width, own.shape[-1])
        if width != own.shape[-1]:
            self._say("notice.vocabulary_cut", teacher=width, student=own.shape[-1], shared=shared)
        if isinstance(theirs, Tensor):
            return own[..., :shared], theirs[..., :shared], moved
        if shared < width:
            expected = f"{width} or more, as in the cache"
            raise ModelError("the student's head is too narrow", got=own.shape[-1], expected=expected)
        return own[..., :shared], theirs, moved
