"""Forward KL to a top-k teacher: value and gradient over a few rows. Pure arithmetic, as `divergences`."""

import math

import torch
from torch import Tensor

from apt_model.distill.losses.divergences import TINY
from apt_model.distill.losses.logit_blocks import TopRows


def top_forward_kl(logits: Tensor, teacher: TopRows, q: Tensor, q_log_sum: Tensor, gradient: Tensor) -> Tensor:
    """Σ over the top K of p (log p − log q), and the tail as one bucket: p_t (log p_t − log q_t), (R) in nats.

    A lower bound of KL(p ‖ q) (by the log-sum inequality), exact where K is the vocabulary. `gradient` gets the
    derivative by `logits`: q − p in the top K, q (1 − p_t / q_t) in the tail.

    Shapes: logits, q, gradient (R, V); q_log_sum (R).
    """
    known = teacher.log_probs.exp()
    tail = teacher.log_tail.exp()
    # log q = z − log Σ exp z in the top K: finite where q itself has become 0
    student_known = q.gather(1, teacher.ids)
    student_log = logits.gather(1, teacher.ids) - q_log_sum.unsqueeze(1)
    # q_t summed over the tail, not 1 − Σ of the top K: that has no digits left where the student is sure
    student_tail = gradient.copy_(q).scatter_(1, teacher.ids, 0.0).sum(dim=1).clamp_(min=TINY)
    kl = (known * (teacher.log_probs - student_log)).sum(dim=1)
    kl += torch.where(tail > 0, tail * (teacher.log_tail - student_tail.log()), 0.0)
    # `gradient` holds q in the tail and 0 in the top K by now
    gradient.mul_((1 - tail / student_tail).unsqueeze(1)).scatter_(1, teacher.ids, student_known - known)
    return kl


def at_temperature_one(teacher: TopRows, *, temperature: float) -> TopRows:
    """The same distribution at temperature 1.

    log p differs from z / T by a constant of the row, so softmax(T log p) over the top K is their softmax at 1 but for
    the tail: scaled by the mass 1 − p_t that the top K have there, which the teacher has told.
    """
    known = torch.log1p(-teacher.log_tail_at_one.exp()).unsqueeze(1)
    log_probs = (teacher.log_probs * temperature).log_softmax(dim=1) + known
    return TopRows(
        ids=teacher.ids,
        log_probs=log_probs,
        log_tail=teacher.log_tail_at_one,
        log_tail_at_one=teacher.log_tail_at_one,
    )


def top_cross_entropy(teacher: TopRows, labels: Tensor, *, width: int) -> Tensor:
    """The teacher's cross-entropy on labels (R, 1), (R) in nats; `width` is the size of the vocabulary.

    A label beyond the top K has an equal share of the tail.
    """
    is_label = teacher.ids == labels
    known = teacher.log_probs.masked_fill(~is_label, -torch.inf).amax(dim=1)
    others = teacher.log_tail - math.log(max(1, width - teacher.ids.shape[1]))
    return -torch.where(is_label.any(dim=1), known, others)
