"""Divergences between teacher and student, value and gradient of each over a few rows.

Pure arithmetic on a `Block` of logits. Knows nothing of models, heads, masks or chunks, nor of the T² and the weights
that the caller applies: a value here is the plain divergence of the two distributions softmax(logits / T).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from apt_model.config.sections import MIXTURES, LossKind

TINY = torch.finfo(torch.float32).tiny


@dataclass
class Block:
    """R rows of both models' logits, and scratch memory. All tensors are float32, (R, V), each its own memory.

    Attributes:
        student: logits / T; read only.
        teacher: logits / T; a kind overwrites it with the gradient with respect to `student`.
        q, p: softmax of student and teacher; a kind may overwrite p.
        q_log_sum, p_log_sum: (R), log Σ exp of student and teacher.
        mixture: the parameter of the kinds that mix p and q.
        spares: scratch memory, reused from block to block.
    """

    student: Tensor
    teacher: Tensor
    q: Tensor
    p: Tensor
    q_log_sum: Tensor
    p_log_sum: Tensor
    mixture: float = 0.0
    spares: list[Tensor] = field(default_factory=list)

    def spare(self) -> Tensor:
        """Scratch memory of (R, V), reused from block to block."""
        if not self.spares or len(self.spares[0]) < len(self.q):
            self.spares[:] = [torch.empty_like(self.q)]
        return self.spares[0][: len(self.q)]


Kind = Callable[[Block], Tensor]


def resolve(kind: LossKind, mixture: float | None) -> tuple[LossKind, float]:
    """A kind and its parameter, its default where None; at the ends of the parameter's range, the KL that remains.

    JSD with β = 0 is the forward KL and with β = 1 the reverse one (the limits of JSD/β and JSD/(1 − β)), as in GKD.
    A skew of 0 is no skew.
    """
    mixture = MIXTURES.get(kind, 0.0) if mixture is None else mixture
    if (kind, mixture) in (("jsd", 0.0), ("skew_kl", 0.0)):
        return "forward_kl", mixture
    if (kind, mixture) in (("jsd", 1.0), ("skew_reverse_kl", 0.0)):
        return "reverse_kl", mixture
    return kind, mixture


def forward_kl(block: Block) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q), (R) in nats. Gradient: q − p.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    difference = block.teacher.sub_(block.student)
    kl = difference.mul_(block.p).sum(dim=1).sub_(block.p_log_sum).add_(block.q_log_sum)
    torch.sub(block.q, block.p, out=block.teacher)
    return kl


def reverse_kl(block: Block) -> Tensor:
    """KL(q ‖ p) = Σ q (log q − log p), (R) in nats; beyond all bounds where only the teacher rules something out.

    Gradient: q (log q − log p − KL).
    Source: Gu et al. 2024 (MiniLLM), arXiv:2306.08543, section 2.
    """
    ratio = torch.sub(block.student, block.teacher, out=block.teacher)
    ratio.sub_((block.q_log_sum - block.p_log_sum).unsqueeze(1))
    return _through_softmax(block, ratio)


def jsd(block: Block) -> Tensor:
    """β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q, (R) in nats.

    Gradient: (1 − β) q (log(q/m) − Σ q log(q/m)).
    Source: Agarwal et al. 2024 (GKD), arXiv:2306.13649, section 2.
    """
    beta, mixed = block.mixture, block.spare()
    torch.lerp(block.q, block.p, beta, out=mixed).clamp_(min=TINY)
    of_teacher = torch.div(block.p, mixed, out=block.teacher).clamp_(min=TINY).log_().mul_(block.p).sum(dim=1)
    ratio = torch.div(block.q, mixed, out=block.teacher).clamp_(min=TINY).log_()
    of_student = _through_softmax(block, ratio)
    block.teacher.mul_(1 - beta)
    return beta * of_teacher + (1 - beta) * of_student


def skew_kl(block: Block) -> Tensor:
    """KL(p ‖ λ p + (1 − λ) q), (R) in nats. Gradient: with g = −(1 − λ) p/m, q (g − Σ q g).

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1.
    """
    skew, mixed = block.mixture, block.spare()
    torch.lerp(block.q, block.p, skew, out=mixed).clamp_(min=TINY)
    ratio = torch.div(block.p, mixed, out=block.teacher)
    kl = torch.clamp(ratio, min=TINY, out=mixed).log_().mul_(block.p).sum(dim=1)
    _through_softmax(block, ratio.mul_(skew - 1))
    return kl


def skew_reverse_kl(block: Block) -> Tensor:
    """KL(q ‖ (1 − λ) p + λ q), (R) in nats. Gradient: with g = log(q/m) − λ q/m, q (g − Σ q g).

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1.
    """
    skew, mixed = block.mixture, block.spare()
    torch.lerp(block.p, block.q, skew, out=mixed).clamp_(min=TINY)
    ratio = torch.div(block.q, mixed, out=mixed)
    slope = torch.clamp(ratio, min=TINY, out=block.teacher).log_()
    kl = torch.mul(block.q, slope, out=block.p).sum(dim=1)
    _through_softmax(block, slope.sub_(ratio, alpha=skew))
    return kl


def _through_softmax(block: Block, slope: Tensor) -> Tensor:
    """Turn `slope` (in `block.teacher`), the derivative by q up to a constant, into that by the logits.

    Returns Σ q · slope, (R).
    """
    mean = slope.mul_(block.q).sum(dim=1)
    slope.addcmul_(block.q, mean.unsqueeze(1), value=-1)
    return mean


KINDS: Mapping[LossKind, Kind] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
}
