"""Both models on one batch: their logits, the loss, and its gradient; the row that a card shows is read on the way.

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
from apt_model.distill.teachers import TeacherSource
from apt_model.errors import ModelError
from apt_model.training.batch import Batch

T = TypeVar("T", float, Tensor)


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
                student_logits, teacher_logits, moved = self.logits(student, batch)
                kd, ce = self.sums(student_logits, teacher_logits, moved)
                accelerator.backward(self.weigh(kd, ce) * (accelerator.num_processes / tokens))
            sums += torch.stack([kd.detach(), ce.detach()])
            readouts.append(read_row(row, student_logits.detach(), teacher_logits) if row is not None else None)
        return sums, readouts

    def sums(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """KD and CE of a batch as sums over its labels."""
        return distillation_sums(student_logits, teacher_logits, batch.labels, temperature=self._config.temperature)

    def logits(self, student: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Batch]:
        """Logits of student and teacher, cut to the vocabulary that both heads have, and the batch where they are.

        Raises:
            ModelError: a label of the batch (still on the CPU) has no column in them.
        """
        moved = batch.to(self._accelerator.device)
        with self._accelerator.autocast():
            theirs, own = self._teacher.logits(moved), self._forward(student, moved)
        shared = min(theirs.shape[-1], own.shape[-1])
        if theirs.shape[-1] != own.shape[-1]:
            self._say("notice.vocabulary_cut", teacher=theirs.shape[-1], student=own.shape[-1], shared=shared)
        highest = int(batch.labels.max())
        if highest >= shared:
            raise ModelError(
                "a label is beyond the heads of the models",
                got=f"label {highest}, logits for {theirs.shape[-1]} (teacher) and {own.shape[-1]} tokens (student)",
                expected=f"labels below {shared}",
                fix="give both models heads as wide as the tokenizer's vocabulary",
            )
        return own[..., :shared], theirs[..., :shared], moved

    @torch.no_grad()
    def blame(self, batches: Sequence[Batch]) -> str | None:
        """After a step that was not finite: the teacher, if its logits are not numbers. Its -inf rule columns out."""
        for batch in batches:
            logits = self._teacher.logits(batch.to(self._accelerator.device))
            if logits.isnan().any() or logits.isposinf().any() or logits.isneginf().all(dim=-1).any():
                return "the teacher's logits are NaN or infinite"
        return None
