"""KL to a teacher of whom only the likeliest tokens are known: k of them, and all others together as one.

Pure functions of tensors. They know nothing of models, batches, or of where the teacher's signal was kept.
"""

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.data.encode import IGNORED
from apt_model.distill.losses.logit_blocks import FLOOR, TopRows
from apt_model.distill.losses.token_stats import ShownTokens, Side, read_tokens
from apt_model.errors import ModelError


def sparse_token_kl(student_logits: Tensor, teacher: TopRows, *, temperature: float) -> Tensor:
    """KL(teacher ‖ student) over the K tokens and the tail as one outcome, in nats, not yet multiplied by T².

    Never more than the KL over all tokens, which it equals where K is the whole vocabulary or where the student's
    tail has the shape of the teacher's: the one bucket hides the tail's mass times the KL within the tail.

    Shapes: student logits (R, V), any float dtype; returns (R) in float32. `teacher` is at `temperature` already.
    Gradient flows to the student only.
    Source: the chain rule of KL (Cover & Thomas, theorem 2.5.3).
    """
    scaled = (student_logits.float() / temperature).clamp(min=FLOOR)
    total = scaled.logsumexp(dim=-1)
    known = scaled.gather(-1, teacher.ids) - total.unsqueeze(-1)
    kl = (teacher.log_probs.exp() * (teacher.log_probs.clamp(min=FLOOR) - known)).sum(dim=-1)
    if teacher.ids.shape[-1] == scaled.shape[-1]:
        return kl
    # not log(1 - sum of the known): that difference has no digits left where the student is sure of itself
    others = scaled.scatter(-1, teacher.ids, FLOOR).logsumexp(dim=-1) - total
    return kl + teacher.log_tail.exp() * (teacher.log_tail.clamp(min=FLOOR) - others)


@dataclass(frozen=True, kw_only=True)
class SparseLogits:
    """What is known of a teacher's distribution at the positions of a batch that have a label.

    Attributes:
        rows: a position after the other, row by row.
        has_label: (B, L) bool; True where a position has its entry in `rows`.
        width: ids that stand for a token, from 0 on; the student's logits are cut to them.
        temperature: of `rows`.
    """

    rows: TopRows
    has_label: Tensor
    width: int
    temperature: float

    def read(self, row: int, student: Side, positions: Tensor, *, spare: Tensor) -> ShownTokens:
        """What a card shows of some positions of a row, all of which have a label; the student there, at T = 1."""
        entries = self.has_label.flatten().cumsum(0).view_as(self.has_label)[row].index_select(0, positions) - 1
        known = TopRows(*(part.index_select(0, entries) for part in self.rows))
        cooled = student._replace(logits=student.logits / self.temperature)
        every = range(len(positions))
        return read_tokens(cooled, known, every, temperature=self.temperature, width=self.width, spare=spare)


def likeliest(teacher: TopRows) -> Tensor:
    """The teacher's argmax at each position, (R)."""
    return teacher.ids.gather(-1, teacher.log_probs.argmax(dim=-1, keepdim=True)).squeeze(-1)


def sparse_distillation_sums(student_logits: Tensor, teacher: SparseLogits, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The KD and CE terms of a batch as in `losses.distillation_sums`, to a teacher that is known in part.

    Shapes: student logits (B, L, V), labels (B, L).
    """
    student, temperature = student_logits[:, :-1][teacher.has_label[:, :-1]], teacher.temperature
    targets = labels[:, 1:][labels[:, 1:] != IGNORED]
    kd = temperature**2 * sparse_token_kl(student, teacher.rows, temperature=temperature).sum()
    return kd, F.cross_entropy(student.float(), targets, reduction="sum")


def refuse_narrow(columns: int, width: int) -> None:
    """Refuse a student whose head lacks tokens that a cache may hold.

    Raises:
        ModelError: both widths.
    """
    if columns < width:
        expected = f"{width} or more, as in the cache"
        raise ModelError("the student's head is too narrow", got=columns, expected=expected)
