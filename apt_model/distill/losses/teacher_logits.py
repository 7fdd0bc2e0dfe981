"""The Protocol of a teacher's logits for one batch, and its plain form: dense logits.

Pure functions of tensors. The other forms are `topk_logits` (a cache) and `cross_vocabulary` (another tokenizer).
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.label_numbers import LabelNumbers, compare_dense, label_numbers
from apt_model.distill.losses.metrics import are_numbers
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import CardRow, RowReadout, numbers, read_row
from apt_model.distill.losses.reference import distillation_sums, token_divergence
from apt_model.distill.losses.token_stats import ShownTokens, SoftmaxRows, read_tokens, softmax_rows


class TeacherLogits(Protocol):
    """A teacher's logits for one batch, without gradient, to compare a student's logits (B, L, V) with."""

    def width_beside(self, columns: int) -> int:
        """The teacher's vocabulary in the student's ids, for a student's head of `columns`."""

    def cut(self, columns: int) -> Self:
        """The same for a student whose logits are cut to `columns`.

        Raises:
            ModelError: too few.
        """

    def sums(self, student_logits: Tensor, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
        """KD (times T²) and CE, each summed over the batch's labels. Gradient flows to the student only."""

    def agreed(self, student_logits: Tensor, batch: Batch) -> Tensor:
        """Number of the batch's labels where student and teacher have the same argmax."""

    def read(self, card: CardRow, student_logits: Tensor, batch: Batch) -> RowReadout:
        """The numbers of a card on one row of the batch, at temperature 1; without those of the step alone."""

    def gain(self, card: CardRow, student_logits: Tensor, batch: Batch, objective: Objective) -> float | None:
        """The mean over the card's tokens of `token_stats.Pulls.gain`; None if the teacher's CE is unknown."""

    def at_labels(self, student_logits: Tensor, batch: Batch) -> LabelNumbers:
        """Both models at each label of the batch, at temperature 1."""

    def are_numbers(self) -> bool:
        """Whether they can be learned from, see `metrics.are_numbers`."""


def as_teacher_logits(found: "Tensor | TeacherLogits") -> "TeacherLogits":
    """What a teacher source returns: a plain tensor (B, L, V) is `DenseLogits`."""
    return DenseLogits(found) if isinstance(found, Tensor) else found


@dataclass(frozen=True)
class DenseLogits:
    """All logits of a teacher that shares the student's vocabulary.

    Attributes:
        logits: (B, L, V), any float dtype.
    """

    logits: Tensor

    def width_beside(self, columns: int) -> int:
        """V, whatever the student has."""
        return self.logits.shape[-1]

    def cut(self, columns: int) -> "DenseLogits":
        """The first `columns` of each position, at most."""
        return DenseLogits(self.logits[..., :columns])

    def sums(self, student_logits: Tensor, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
        """KD and CE by the formulas of `reference`."""
        return distillation_sums(
            student_logits,
            self.logits,
            batch.labels,
            temperature=objective.temperature,
            kind=objective.kind,
            mixture=objective.mixture,
        )

    def agreed(self, student_logits: Tensor, batch: Batch) -> Tensor:
        """Number of labels with the same argmax."""
        has_label = batch.labels[:, 1:] != IGNORED
        students = student_logits.argmax(-1)[:, :-1][has_label]
        return (students == self.logits.argmax(-1)[:, :-1][has_label]).sum()

    def read(self, card: CardRow, student_logits: Tensor, batch: Batch) -> RowReadout:
        """The numbers of a card."""

        def read_some(student: SoftmaxRows, positions: Tensor, spare: Tensor) -> ShownTokens:
            width = student_logits.shape[-1]
            teacher = softmax_rows(self.logits[card.row].index_select(0, positions), width=width)
            return read_tokens(student, teacher, range(len(positions)), temperature=1.0, width=width, spare=spare)

        return read_row(card, student_logits, read_some)

    def at_labels(self, student_logits: Tensor, batch: Batch) -> LabelNumbers:
        """Both models at each label, from all logits."""
        return label_numbers(
            student_logits, batch, lambda student: compare_dense(student, self.logits[student.rows, student.positions])
        )

    def gain(self, card: CardRow, student_logits: Tensor, batch: Batch, objective: Objective) -> float:
        """By the formulas of `reference`."""
        at, labels = labels_of(card, batch)
        student, teacher = student_logits[card.row, at].float(), self.logits[card.row, at].float()
        kd = token_divergence(
            student, teacher, temperature=objective.temperature, kind=objective.kind, mixture=objective.mixture
        )
        gap = F.cross_entropy(student, labels) - F.cross_entropy(teacher, labels)
        return numbers([objective.gain(kd.mean(), gap)])[0]

    def are_numbers(self) -> bool:
        """No NaN, no +inf, and not -inf all along a row."""
        return are_numbers(self.logits)


def labels_of(card: CardRow, batch: Batch) -> tuple[Tensor, Tensor]:
    """The positions of a card, and the labels there, (S) each, on the batch's device."""
    at = card.positions.to(batch.labels.device)
    return at, batch.labels[card.row, at + 1]
