"""The objective of a contender, computed in float64 as a reference, and the contender's error against it.

The reference uses full logits and plain autograd. Knows nothing of clocks, or of how a contender works.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.sizes import Pair, Size, make_batch, make_pair

IGNORED = -100
TOLERANCE = 1e-4  # relative, float32 against float64
TOP = 64  # of a cache
PROBE = Size(vocabulary=2_051, teacher=(64, 2), student=(32, 2), rows=8, length=48)  # heads large enough for full width

Term = Literal["KL", "JSD", "soft CE", "KL of the top 64 and the rest"]
LossFunction = Callable[[Tensor, Tensor], Tensor]  # ids (B, L), labels (B, L) → scalar with gradient
Products = Callable[[Pair], AbstractContextManager[None]]  # how the pair's float32 products are made, inside


@dataclass(frozen=True, kw_only=True)
class StepObjective:
    """`kd_weight · mean(kd at temperature) + ce_weight · mean(CE)`, means over the positions that have a label.

    Attributes:
        kd: KL(teacher ‖ student), the even Jensen-Shannon divergence, or the teacher's cross-entropy (the KL without
            the teacher's entropy: another value, the same gradient); None for no distillation at all.
        temperature: of the distributions in `kd`.
        kd_weight: T² included, where there is one.
        ce_weight: of the cross-entropy to the labels at temperature 1.
        masks: whether `kd` leaves out positions without a label.
        tolerance: relative error up to which a contender computes it.
    """

    kd: Term | None = "KL"
    temperature: float = 2.0
    kd_weight: float = 2.0
    ce_weight: float = 0.5
    masks: bool = True
    tolerance: float = TOLERANCE

    def __str__(self) -> str:
        parts = []
        if self.kd is not None:
            parts.append(f"{self.kd_weight:g} {self.kd} at T = {self.temperature:g}{'' if self.masks else ', no mask'}")
        if self.ce_weight:
            parts.append(f"{self.ce_weight:g} CE")
        return " + ".join(parts)

    def written_out(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The reference value, from logits (B, L, V) and labels (B, L), in the dtype of the logits."""
        student, teacher, targets = student[:, :-1], teacher[:, :-1], labels[:, 1:]
        counts = targets != IGNORED
        loss = torch.zeros((), dtype=student.dtype)
        if self.kd is not None:
            where = counts if self.masks else torch.ones_like(counts)
            loss = loss + self.kd_weight * self._kd(student[where], teacher[where]).mean()
        chosen = torch.log_softmax(student[counts], -1).gather(-1, targets[counts].unsqueeze(-1))
        return loss - self.ce_weight * chosen.mean()

    def _kd(self, student: Tensor, teacher: Tensor) -> Tensor:
        log_q = torch.log_softmax(student / self.temperature, -1)
        log_p = torch.log_softmax(teacher / self.temperature, -1)
        p, q = log_p.exp(), log_q.exp()
        if self.kd == "soft CE":
            return -(p * log_q).sum(-1)
        if self.kd == "KL":
            return (p * (log_p - log_q)).sum(-1)
        if self.kd == "KL of the top 64 and the rest":
            top = p.topk(TOP, -1).indices
            known, answered = p.gather(-1, top), q.gather(-1, top)
            rest, missed = 1 - known.sum(-1), 1 - answered.sum(-1)
            return (known * (known / answered).log()).sum(-1) + rest * (rest / missed).log()
        log_m = ((p + q) / 2).log()
        return ((p * (log_p - log_m) + q * (log_q - log_m)) / 2).sum(-1)


TASK = StepObjective()


def as_usual(pair: Pair) -> AbstractContextManager[None]:
    """Context manager that changes nothing: torch's own products."""
    return nullcontext()


def disagreement(
    build: Callable[[Pair], LossFunction], objective: StepObjective, products: Products = as_usual
) -> tuple[float, float]:
    """Relative errors of a contender's loss and of the student's gradient, against the reference.

    On a small batch in float32 on the CPU, with a third of its labels masked.
    """
    pair = make_pair(PROBE, dtype=torch.float32)
    with torch.no_grad():
        for head in (pair.teacher.lm_head, pair.student.lm_head):
            head.weight.mul_(20)  # far from uniform, so that a wrong temperature shows
    ids, labels = make_batch(PROBE)
    labels[:, : PROBE.length // 3] = IGNORED
    exact = copy.deepcopy(pair.student).double()
    with torch.no_grad():
        spoken = copy.deepcopy(pair.teacher).double()(ids).logits
    expected = objective.written_out(exact(ids).logits, spoken, labels)
    expected.backward()
    with products(pair):
        found = build(pair)(ids, labels)
        found.backward()
    pairs = [(one.grad, two.grad) for one, two in zip(pair.student.parameters(), exact.parameters(), strict=True)]
    apart = sum(float((one.double() - two).square().sum()) for one, two in pairs if one is not None and two is not None)
    length = sum(float(two.square().sum()) for _, two in pairs if two is not None)
    missing = any(one is None for one, _ in pairs)
    loss_error = abs(found.item() - expected.item()) / abs(expected.item())
    return loss_error, float("inf") if missing else (apart / length) ** 0.5
