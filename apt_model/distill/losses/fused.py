"""The distillation loss and its gradients in one pass over hidden states, a chunk of logits at a time.

Writes out no logits but those of one chunk, whatever the batch; a student that hides its head has written its own, and
then nothing of their size is made but their gradient. Knows nothing of how models are run, of batches, or of what a
card does with what it reads here; `losses` holds the same loss in a few plain lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apt_model.config import LossKind
from apt_model.distill.losses.fused_pass import Pass
from apt_model.distill.losses.logit_blocks import (
    Buffer,
    Gradients,
    HeadSignal,
    Signal,
    WrittenSignal,
    padded,
    product_dtype,
)
from apt_model.distill.losses.token_stats import Pulls, ShownTokens, join
from apt_model.models.output_head import OutputHead

BUDGET = 256 * 2**20  # bytes of both heads' logits at a time
MOST_ROWS, FEWEST_ROWS = 256, 32  # of a chunk: more gains nothing, fewer leave the matrix product starving


@dataclass(frozen=True, kw_only=True)
class FusedLoss:
    """What one pass gives.

    Attributes:
        loss: scalar float32 with gradient, `weight · (alpha · Σ T² D + beta · Σ CE)`.
        kd: scalar, Σ T² D over the positions, not weighted, without gradient.
        ce: scalar, Σ cross-entropy at temperature 1, likewise.
        teacher_log_sum: scalar, Σ log Σ exp of the teacher's logits: finite exactly where all of them are (or -inf).
        shown: what was asked for with `shown`, in that order; None if nothing was.
        pulls: what moves the student there; likewise.
    """

    loss: Tensor
    kd: Tensor
    ce: Tensor
    teacher_log_sum: Tensor
    shown: ShownTokens | None
    pulls: Pulls | None


def chunk_rows_for(width: int, dtype: torch.dtype, budget: int = BUDGET) -> int:
    """Positions of a chunk, so that both heads' logits stay within `budget` bytes."""
    rows = budget // (2 * padded(width) * dtype.itemsize)
    return int(min(max(rows, FEWEST_ROWS), MOST_ROWS * 4 // dtype.itemsize))


def fused_distillation(
    hidden: Tensor,
    head: OutputHead | None,
    teacher: Signal,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
    weight: float = 1.0,
    kind: LossKind = "forward_kl",
    mixture: float | None = None,
    chunk_rows: int | None = None,
    dtype: torch.dtype | None = None,
    shown: Sequence[int] = (),
    buffer: Buffer | None = None,
    positions: Tensor | None = None,
) -> FusedLoss:
    """`weight · (alpha · Σ T² D(teacher, student) + beta · Σ CE)` over N positions, ready for `backward`.

    The gradients are made in this pass and handed out by `backward`, which can be called once.

    Args:
        hidden: (N, H), the student's last hidden states at the positions to learn from; gradient flows into them.
            Without a head, the student's logits (M, V) instead.
        head: the student's, gradient flows into its weight and bias where they are trained; None where it is hidden.
        teacher: of the same N positions, over the same temperature; its width, the shared vocabulary, decides how many
            columns of the student's head take part.
        labels: (N) int64, the token that follows each position; none of them -100.
        temperature: of the divergence D; the cross-entropy is at 1.
        alpha, beta: the weights of both terms.
        weight: a factor on the loss; 1 over the tokens of the whole step gives the mean.
        kind: which divergence D, see `kinds`.
        mixture: parameter of the kinds that mix both distributions; the kind's own where None.
        chunk_rows: positions at a time; from the vocabulary and BUDGET where None.
        dtype: of the products; the weight's own where None, autocast's where that is on.
        shown: indices into N, ascending, of what a card shows.
        buffer: room for a chunk of the student's logits, kept from call to call; the teacher has its own.
        positions: (N) int64, the rows of the student's logits to learn from, where there is no head; all where None.
    """
    if head is None:
        dtype = torch.float32
    elif dtype is None:
        dtype = product_dtype(head)
    work = Pass(
        labels=labels,
        teacher=teacher,
        temperature=temperature,
        alpha=alpha,
        beta=beta,
        weight=weight,
        kind=kind,
        mixture=mixture,
        chunk_rows=chunk_rows or chunk_rows_for(teacher.width, dtype),
        shown=shown,
    )
    with torch.autocast(hidden.device.type, enabled=False):
        if head is None:
            loss = _Written.apply(hidden, positions, work)  # type: ignore[no-untyped-call]
        else:
            loss = _Fused.apply(hidden, head.linear.weight, head.linear.bias, head, dtype, work, buffer)  # type: ignore[no-untyped-call]
    return FusedLoss(
        loss=loss,
        kd=work.kd,
        ce=work.ce,
        teacher_log_sum=work.teacher_log_sum,
        shown=join(work.readings) if work.readings else None,
        pulls=join(work.pulls) if work.pulls else None,
    )


class _Fused(torch.autograd.Function):
    """Hands out in backward what was made in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: OutputHead,
        dtype: torch.dtype,
        work: Pass,
        buffer: Buffer | None,
    ) -> Tensor:
        wanted = ctx.needs_input_grad
        width = work.teacher.width
        fresh = torch.empty if width == len(weight) and len(hidden) else torch.zeros
        gradients = Gradients(
            hidden=torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device) if wanted[0] else None,
            weight=fresh(weight.shape, dtype=torch.float32, device=hidden.device) if wanted[1] else None,
            bias=torch.zeros(len(weight), dtype=torch.float32, device=hidden.device) if wanted[2] else None,
        )
        student = HeadSignal(hidden, head, temperature=work.temperature, width=width, dtype=dtype, buffer=buffer)
        loss = work.run(student, gradients if any(wanted) else None)
        ctx.gradients = gradients
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _take(ctx)
        found = (gradients.hidden, gradients.weight, gradients.bias)
        del gradients  # nobody else holds them: a parameter without a gradient takes its own as it is, uncopied
        hidden, head = ctx.dtypes
        scaled = [_times(g, outer[0], to) for g, to in zip(found, (hidden, head, head), strict=True)]
        return *scaled, *[None] * 4


class _Written(torch.autograd.Function):
    """The same for logits that the student has written out."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positions: Tensor | None, work: Pass) -> Tensor:
        # float16's gradients wait in float32 for the factor that lifts them into its range
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        into = torch.zeros_like(logits, dtype=dtype) if ctx.needs_input_grad[0] else None
        ctx.gradients, ctx.dtype = into, logits.dtype
        student = WrittenSignal(
            logits,
            temperature=work.temperature,
            width=work.teacher.width,
            positions=positions,
            into=into,
            unit=work.unit,
        )
        return work.run(student)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, None, None]:
        return _times(_take(ctx), outer[0], ctx.dtype), None, None


def _take(ctx: Any) -> Any:
    gradients, ctx.gradients = ctx.gradients, None
    if gradients is None:
        raise RuntimeError("the fused loss hands out its gradients once: compute it again for a second backward")
    return gradients


def _times(gradient: Tensor | None, factor: Tensor, dtype: torch.dtype) -> Tensor | None:
    if gradient is None:
        return None
    is_one = factor.device.type == "cpu" and factor.item() == 1
    return (gradient if is_one else gradient.mul_(factor)).to(dtype)
