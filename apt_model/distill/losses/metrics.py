"""Cross-entropy, accuracy, KL and agreement of logits, summed row by row, for evaluation.

Pure functions of logits and labels. They know nothing of models, batches, devices, or of what is done with the sums.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.reference import token_kl

CHUNK_NUMBERS = 2**22  # logits that are looked at together: 16 MB in float32, however large the vocabulary


@dataclass(frozen=True, kw_only=True)
class RowSums:
    """Sums over the valid positions of each of B rows; each attribute is (B,), float32, on the logits' device.

    Attributes:
        tokens: positions whose label is not -100.
        ce: cross-entropy to the labels at temperature 1, in nats.
        correct: positions whose label is the most likely token.
        kl: KL(teacher ‖ student) at temperature 1, in nats; None without a teacher.
        agreed: positions where teacher and student find the same token most likely; None without a teacher.
    """

    tokens: Tensor
    ce: Tensor
    correct: Tensor
    kl: Tensor | None = None
    agreed: Tensor | None = None


def are_numbers(logits: Tensor) -> bool:
    """Whether logits (..., V) can be learned from: no NaN, no +inf, and not -inf everywhere in a row. A -inf rules a
    column out."""
    return not bool(logits.isnan().any() or logits.isposinf().any() or logits.isneginf().all(dim=-1).any())


@torch.no_grad()
def row_sums(student_logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None) -> RowSums:
    """The sums of a student's logits, and of its distance to a teacher's; for the teacher's own, pass its logits as the
    student's.

    Shapes: logits (B, L, V), any float dtype, labels (B, L) with -100 where nothing is scored; the shift happens here,
    logits at l predict labels at l + 1. Where the heads differ in width (padding), KL and agreement are over the
    vocabulary that both have; cross-entropy and accuracy never depend on the teacher. No gradient. Besides the
    logits given, memory is a few times `CHUNK_NUMBERS` numbers: only scored positions are looked at, some at a time.
    """
    targets = labels[:, 1:]
    rows, positions = (targets != IGNORED).nonzero(as_tuple=True)
    names = ("ce", "correct") if teacher_logits is None else ("ce", "correct", "kl", "agreed")
    spread = {name: torch.zeros(targets.shape, device=labels.device) for name in names}
    for at in _chunks(rows, positions, student_logits.shape[-1]):
        student = student_logits[at].float()
        best, target = student.argmax(dim=-1), targets[at]
        spread["ce"][at] = F.cross_entropy(student, target, reduction="none")
        spread["correct"][at] = (best == target).float()
        if teacher_logits is not None:
            shared = min(student.shape[-1], teacher_logits.shape[-1])
            student, teacher = student[:, :shared], teacher_logits[at][:, :shared]
            spread["kl"][at] = token_kl(student, teacher, temperature=1.0).clamp(min=0)
            spread["agreed"][at] = (student.argmax(dim=-1) == teacher.argmax(dim=-1)).float()
    sums = {name: values.sum(dim=1) for name, values in spread.items()}
    return RowSums(tokens=(targets != IGNORED).sum(dim=1).float(), **sums)


def _chunks(rows: Tensor, positions: Tensor, vocabulary: int) -> list[tuple[Tensor, Tensor]]:
    """The scored places, (row, position), so many at a time that their logits are `CHUNK_NUMBERS` or fewer."""
    size = max(1, CHUNK_NUMBERS // vocabulary)
    return list(zip(torch.split(rows, size), torch.split(positions, size), strict=True))
