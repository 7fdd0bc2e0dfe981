"""Forward KL to a top-k teacher: its k likeliest tokens, and all others together as one outcome (the tail).

Pure functions of tensors. They know nothing of models, or of where the teacher's signal was kept.
"""

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.label_numbers import Compared, LabelNumbers, StudentLabels, label_numbers
from apt_model.distill.losses.logit_blocks import FLOOR, TopRows
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import CardRow, RowReadout, numbers, read_row
from apt_model.distill.losses.teacher_logits import labels_of
from apt_model.distill.losses.token_stats import ShownTokens, SoftmaxRows, read_tokens
from apt_model.distill.losses.topk_kl import at_temperature_one, top_cross_entropy
from apt_model.errors import ModelError


def sparse_token_kl(student_logits: Tensor, teacher: TopRows, *, temperature: float) -> Tensor:
    """KL(teacher ‖ student) over the k tokens and the tail as one outcome, in nats, not yet multiplied by T².

    Never more than the KL over all tokens, which it equals where k is the whole vocabulary or where the student's
    tail has the shape of the teacher's: the one bucket hides the tail's mass times the KL within the tail.

    Shapes: student logits (R, V), any float dtype; returns (R) in float32. `teacher` is at `temperature` already.
    Gradient flows to the student only.
    Source: the chain rule of KL (Cover & Thomas, theorem 2.5.3).
    """
    scaled = (student_logits.float() / temperature).clamp(min=FLOOR)
    total = scaled.logsumexp(dim=-1)
    # Σ over the k tokens of p (log p − log q)
    known = scaled.gather(-1, teacher.ids) - total.unsqueeze(-1)
    kl = (teacher.log_probs.exp() * (teacher.log_probs.clamp(min=FLOOR) - known)).sum(dim=-1)
    if teacher.ids.shape[-1] == scaled.shape[-1]:
        return kl
    # + p_tail (log p_tail − log q_tail), with log q_tail summed over the tail itself: log(1 − Σ of the known) has no
    # digits left where the student is sure of itself
    others = scaled.scatter(-1, teacher.ids, FLOOR).logsumexp(dim=-1) - total
    return kl + teacher.log_tail.exp() * (teacher.log_tail.clamp(min=FLOOR) - others)


@dataclass(frozen=True, kw_only=True)
class SparseLogits:
    """The top k of a teacher's logits at the positions of a batch that have a label.

    Attributes:
        rows: one position after the other, row by row.
        has_label: (B, L) bool; True where a position has its entry in `rows`.
        width: ids that stand for a token, from 0 on; the student's logits are cut to them.
        temperature: of `rows`.
    """

    rows: TopRows
    has_label: Tensor
    width: int
    temperature: float

    def width_beside(self, columns: int) -> int:
        """The teacher's vocabulary, whatever the student's head has."""
        return self.width

    def cut(self, columns: int) -> "SparseLogits":
        """Unchanged: a cache cannot be cut.

        Raises:
            ModelError: the student has fewer columns.
        """
        refuse_narrow(columns, self.width)
        return self

    def sums(self, student_logits: Tensor, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
        """KD and CE as sums; the divergence is the forward KL at the temperature of `rows`, the only one of a cache."""
        student, temperature = student_logits[:, :-1][self.has_label[:, :-1]], self.temperature
        targets = batch.labels[:, 1:][batch.labels[:, 1:] != IGNORED]
        kd = temperature**2 * sparse_token_kl(student, self.rows, temperature=temperature).sum()
        return kd, F.cross_entropy(student.float(), targets, reduction="sum")

    def agreed(self, student_logits: Tensor, batch: Batch) -> Tensor:
        """Number of labels with the same argmax."""
        students = student_logits.argmax(-1)[:, :-1][batch.labels[:, 1:] != IGNORED]
        rows = self.rows
        return (students == rows.ids.gather(-1, rows.log_probs.argmax(dim=-1, keepdim=True)).squeeze(-1)).sum()

    def read(self, card: CardRow, student_logits: Tensor, batch: Batch) -> RowReadout:
        """The numbers of a card, all of whose positions have a label; without the teacher's entropy."""

        def read_some(student: SoftmaxRows, positions: Tensor, spare: Tensor) -> ShownTokens:
            known = self._known(card, positions)
            cooled = student._replace(logits=student.logits / self.temperature)  # as `rows` are
            every = range(len(positions))
            return read_tokens(cooled, known, every, temperature=self.temperature, width=self.width, spare=spare)

        return read_row(card, student_logits, read_some)

    def at_labels(self, student_logits: Tensor, batch: Batch) -> LabelNumbers:
        """Both models at each label; the KL takes the tail as one outcome."""
        return label_numbers(student_logits, batch, self._compare)

    def _compare(self, student: StudentLabels) -> Compared:
        rows = at_temperature_one(self.rows.at(student.part), temperature=self.temperature)
        best = rows.ids.gather(1, rows.log_probs.argmax(dim=1, keepdim=True)).squeeze(1)
        kl = sparse_token_kl(student.log_probs, rows, temperature=1.0)
        return kl, best == student.best, top_cross_entropy(rows, student.targets.unsqueeze(1), width=self.width)

    def gain(self, card: CardRow, student_logits: Tensor, batch: Batch, objective: Objective) -> float:
        """What the student can gain; a label beyond the top k has an equal share of the tail."""
        at, labels = labels_of(card, batch)
        student, known = student_logits[card.row, at].float(), self._known(card, at)
        kd = sparse_token_kl(student, known, temperature=self.temperature).mean()
        at_one = at_temperature_one(known, temperature=self.temperature)
        its_ce = top_cross_entropy(at_one, labels.unsqueeze(1), width=self.width)
        return numbers([objective.gain(kd, F.cross_entropy(student, labels) - its_ce.mean())])[0]

    def _known(self, card: CardRow, positions: Tensor) -> TopRows:
        """The top k at some of a card's positions."""
        entries = self.has_label.flatten().cumsum(0).view_as(self.has_label)[card.row] - 1  # (L): where in `rows`
        return self.rows.at(entries.index_select(0, positions))

    def are_numbers(self) -> bool:
        """Always true: non-finite logits are refused when a cache is written."""
        return True


def refuse_narrow(columns: int, width: int) -> None:
    """Refuse a student whose head lacks tokens that a cache may hold.

    Raises:
        ModelError: both widths.
    """
    if columns < width:
        expected = f"{width} or more, as in the cache"
        raise ModelError("the student's head is too narrow", got=columns, expected=expected)
