"""How far teacher and student are apart at each label of a batch, at temperature 1: KL, agreement, cross-entropy, echo.

Tensors in, small tensors out; knows nothing of models, or of what is done with the numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from apt_model.data.batch import Batch, learned_positions
from apt_model.distill.losses.logit_blocks import FLOOR
from apt_model.distill.losses.token_stats import argmax

FLOATS_AT_ONCE = 2**18  # of each model: a megabyte, so that what is computed stays in the cache


class LabelNumbers(NamedTuple):
    """Teacher and student at the N positions that predict a label, row by row; each (N) float32.

    Attributes:
        kl_nats: KL(teacher ‖ student).
        normalised_kl: 1 - exp(-KL).
        agreed: 1 where both models' most probable tokens are the same.
        ce, teacher_ce: cross-entropy of each model on the label, in nats; the teacher's is (0) where unknown.
        echo: 1 where the student's most probable token is the one that it has just read.
    """

    kl_nats: Tensor
    normalised_kl: Tensor
    agreed: Tensor
    ce: Tensor
    teacher_ce: Tensor
    echo: Tensor


class StudentLabels(NamedTuple):
    """The student at some of these positions.

    Attributes:
        rows, positions: (R) int64, where in the batch.
        part: which of the N positions.
        targets: (R) int64, their labels.
        log_probs: (R, V) float32, not below FLOOR.
        best: (R) int64, the most probable token.
    """

    rows: Tensor
    positions: Tensor
    part: slice
    targets: Tensor
    log_probs: Tensor
    best: Tensor


Compared = tuple[Tensor, Tensor, Tensor]  # KL, agreed, the teacher's cross-entropy


@torch.no_grad()
def label_numbers(student_logits: Tensor, batch: Batch, compare: Callable[[StudentLabels], Compared]) -> LabelNumbers:
    """The numbers at every label of a batch; `compare` puts the teacher beside some of the student's positions.

    Shapes: student logits (B, L, V), any float dtype; logits at l predict labels at l + 1. Besides them, memory is a
    few times FLOATS_AT_ONCE.
    """
    places, length = learned_positions(batch.labels), batch.labels.shape[1]
    targets, fed = batch.labels.flatten()[places + 1], batch.input_ids.flatten()[places]
    rows, positions = places // length, places % length
    size, found = max(1, FLOATS_AT_ONCE // student_logits.shape[-1]), list[LabelNumbers]()
    for start in range(0, len(places), size):
        part = slice(start, start + size)
        log_probs = student_logits[rows[part], positions[part]].float().log_softmax(dim=-1)
        best, ce = argmax(log_probs), cross_entropy(log_probs, targets[part])
        student = StudentLabels(rows[part], positions[part], part, targets[part], log_probs.clamp_(min=FLOOR), best)
        kl, agreed, teacher_ce = compare(student)
        kl, echo = kl.clamp(min=0), (best == fed[part]).float()
        found.append(LabelNumbers(kl, -torch.expm1(-kl), agreed.float(), ce, teacher_ce, echo))
    return LabelNumbers(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def compare_dense(student: StudentLabels, teacher_logits: Tensor) -> Compared:
    """With a teacher's logits (R, V): KL = Σ p (log p − log q); what the teacher rules out (-inf) counts 0."""
    log_probs = teacher_logits.float().log_softmax(dim=-1)
    agreed, ce = argmax(log_probs) == student.best, cross_entropy(log_probs, student.targets)
    probs = log_probs.clamp_(min=FLOOR).exp()
    return torch.linalg.vecdot(probs, log_probs.sub_(student.log_probs)), agreed, ce


def cross_entropy(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Of log-probabilities (R, V) on labels (R)."""
    return -log_probs.gather(1, targets.unsqueeze(1)).squeeze(1)
