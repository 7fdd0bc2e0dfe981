"""The fused loss's reference: the same loss by plain autograd over whole logits, in the formulas of `losses`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.distill.losses.fused import WrittenLogits, fused_distillation
from apt_model.distill.losses.fused_pass import FusedLoss
from apt_model.distill.losses.logit_blocks import Signal, TopRows
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.reference import token_divergence
from apt_model.distill.losses.topk_logits import sparse_token_kl


def write_everything_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on students hide their heads, and are graded by autograd."""
    monkeypatch.setattr("apt_model.distill.grader.find_head", lambda model: None)
    monkeypatch.setattr("apt_model.distill.grader.fused_distillation", by_autograd)


def by_autograd(
    student: WrittenLogits,
    signal: Signal,
    labels: Tensor,
    *,
    objective: Objective,
    weight: float,
    shown: Sequence[int],
    **more: Any,
) -> FusedLoss:
    """What `fused_distillation` gives; only what cards show is its own."""
    temperature, kind, mixture = objective.temperature, objective.kind, objective.mixture
    unlearned = replace(student, logits=student.logits.detach())
    seen = fused_distillation(unlearned, signal, labels, objective=objective, shown=shown)
    signal.begin(0, len(labels))
    said, own = signal.block(0, len(labels)), student.logits[student.positions][:, : signal.width]
    if isinstance(said, TopRows):
        divergence = sparse_token_kl(own, said, temperature=temperature)
    else:
        theirs = said[:, : signal.width] * temperature
        divergence = token_divergence(own, theirs, temperature=temperature, kind=kind, mixture=mixture)
    kd, ce = temperature**2 * divergence.sum(), F.cross_entropy(own.float(), labels, reduction="sum")
    return replace(seen, loss=weight * (objective.alpha * kd + objective.beta * ce), kd=kd.detach(), ce=ce.detach())
