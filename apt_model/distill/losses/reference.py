"""Reference loss in plain autograd: a divergence from the teacher, cross-entropy to the labels.

What training computes block by block (`fused`), here on whole logits: for validation, and to test the fused loss.
Pure functions of logits. They know nothing of models, batches, devices, or of where the teacher's logits came from.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.config.sections import LossKind
from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.divergences import resolve
from apt_model.distill.losses.logit_blocks import FLOOR


def token_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher ‖ student) at each position, in nats, not yet multiplied by T².

    Shapes: both inputs (..., V), any float dtype; returns (...) in float32.
    Gradient flows to the student only. What the teacher rules out (a logit of -inf) counts 0, whatever the student
    says of it.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
    ruled_out = teacher == -torch.inf
    student, teacher = student.masked_fill(ruled_out, 0.0), teacher.masked_fill_(ruled_out, torch.finfo().min)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)


def token_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, kind: LossKind, mixture: float | None = None
) -> Tensor:
    """The divergence of a kind at each position, in nats, not yet multiplied by T²; see `divergences`.

    Shapes and gradient as in `token_kl`, which is the kind "forward_kl".
    """
    kind, weight = resolve(kind, mixture)
    if kind == "forward_kl":
        return token_kl(student_logits, teacher_logits, temperature=temperature)
    logits = (student_logits.float(), teacher_logits.detach().float())
    q, p = (F.log_softmax((x / temperature).clamp(min=FLOOR), dim=-1) for x in logits)
    return FORMULAS[kind](p, q, weight)


def _kl(one: Tensor, other: Tensor) -> Tensor:
    return (one.exp() * (one - other)).sum(dim=-1)


def _mix(one: Tensor, other: Tensor, weight: float) -> Tensor:
    """log(weight · exp(one) + (1 − weight) · exp(other))."""
    return torch.logaddexp(one + math.log(weight), other + math.log1p(-weight))


def _jsd(p: Tensor, q: Tensor, weight: float) -> Tensor:
    middle = _mix(p, q, weight)
    return weight * _kl(p, middle) + (1 - weight) * _kl(q, middle)


# The formula of each kind, in log-probabilities (..., V) of teacher p and student q, and the kind's parameter. The
# fused loss has its own form of each, with its gradient: `divergences.KINDS`.
FORMULAS: Mapping[LossKind, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": lambda p, q, weight: _kl(p, q),
    "reverse_kl": lambda p, q, weight: _kl(q, p),
    "jsd": _jsd,
    "skew_kl": lambda p, q, weight: _kl(p, _mix(p, q, weight)),
    "skew_reverse_kl": lambda p, q, weight: _kl(q, _mix(q, p, weight)),
}


def distillation_sums(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    kind: LossKind = "forward_kl",
    mixture: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The KD and CE terms of a batch as sums over its valid positions; the caller divides by their number.

    Sums, not means: the mean must be over the tokens of the whole accumulated, global batch, which only the caller
    knows.

    Shapes: logits (B, L, V), labels (B, L) with -100 where nothing is to be learned; the shift happens here, logits
    at l predict labels at l + 1. Returns two float32 scalars: T² · Σ KL(teacher ‖ student) (or another `kind`)
    at temperature T, and Σ cross-entropy at temperature 1. Gradient flows to the student only.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2 (T² keeps the gradient's scale when T changes).
    """
    valid = labels[:, 1:] != IGNORED  # picked first: 0 times the NaN of a padded position would still be NaN
    student, teacher, targets = student_logits[:, :-1][valid], teacher_logits[:, :-1][valid], labels[:, 1:][valid]
    kl = token_divergence(student, teacher, temperature=temperature, kind=kind, mixture=mixture)
    kd = temperature**2 * kl.sum()
    ce = F.cross_entropy(student.float(), targets, reduction="sum")
    return kd, ce
