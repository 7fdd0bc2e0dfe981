"""Fused distillation loss: value and gradients in one pass, a chunk of logits at a time.

Writes out no logits but those of one chunk, whatever the batch; a student that hides its head has written its own, and
then nothing of their size is made but their gradient. Knows nothing of how models are run, of batches, or of what a
card does with its statistics; `reference` holds the same loss in a few plain lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from apt_model.distill.losses.chunk_size import chunk_rows_for
from apt_model.distill.losses.fused_pass import FusedLoss, FusedPass
from apt_model.distill.losses.logit_blocks import Buffer, Signal, product_dtype
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.student_blocks import LearningHead, LearningLogits, LearningSignal
from apt_model.models.output_head import OutputHead


class StudentOutput(Protocol):
    """What the fused loss takes from the student's forward pass: the head's input, or its logits."""

    @property
    def leaves(self) -> tuple[Tensor | None, ...]:
        """The tensors that get a gradient from the loss."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of a chunk's logits."""

    def signal(self, *, temperature: float, width: int, unit: float) -> LearningSignal:
        """The logits divided by the temperature, with gradients, times `unit`, of the leaves that require one."""


@dataclass(frozen=True, kw_only=True)
class HeadInput:
    """The hidden states that enter the student's head, and the head: the loss computes the logits itself.

    Attributes:
        hidden: (N, H), the last hidden states at the positions to learn from; gradient flows into them.
        head: gradient flows into its weight and bias where they are trained.
        product_dtype: of the products; None: autocast's if that is on, else the weight's.
        buffer: memory for a chunk of logits, reused from call to call; the teacher has its own.
    """

    hidden: Tensor
    head: OutputHead
    product_dtype: torch.dtype | None = None
    buffer: Buffer | None = None

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Hidden states, weight and bias."""
        return self.hidden, self.head.linear.weight, self.head.linear.bias

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the products."""
        return product_dtype(self.head) if self.product_dtype is None else self.product_dtype

    def signal(self, *, temperature: float, width: int, unit: float) -> LearningHead:
        """Logits computed by the head, a chunk at a time."""
        hidden, weight, bias = map(_learns, self.leaves)
        return LearningHead(
            self.hidden,
            self.head,
            temperature=temperature,
            width=width,
            dtype=self.dtype,
            buffer=self.buffer,
            unit=unit,
            learns=(hidden, weight, bias),
        )


@dataclass(frozen=True, kw_only=True)
class WrittenLogits:
    """The full logits of a student whose head cannot be called separately.

    Attributes:
        logits: (M, V), any float dtype; gradient flows into them.
        positions: (N) int64, the rows to learn from; all where None.
    """

    logits: Tensor
    positions: Tensor | None = None

    @property
    def leaves(self) -> tuple[Tensor]:
        """The logits."""
        return (self.logits,)

    @property
    def dtype(self) -> torch.dtype:
        """float32, to which each block of them is converted."""
        return torch.float32

    def signal(self, *, temperature: float, width: int, unit: float) -> LearningLogits:
        """The logits themselves."""
        learns = _learns(self.logits)
        return LearningLogits(
            self.logits, temperature=temperature, width=width, positions=self.positions, unit=unit, learns=learns
        )


def _learns(leaf: Tensor | None) -> bool:
    return leaf is not None and leaf.requires_grad and torch.is_grad_enabled()


def fused_distillation(
    student: StudentOutput,
    teacher: Signal,
    labels: Tensor,
    *,
    objective: Objective,
    weight: float = 1.0,
    chunk_rows: int | None = None,
    shown: Sequence[int] = (),
) -> FusedLoss:
    """`weight · (alpha · Σ T² D(teacher, student) + beta · Σ CE)` over N positions, ready for `backward`.

    The gradients are made in this pass and handed out by `backward`, which can be called once.

    Args:
        student: `HeadInput`, or `WrittenLogits` where its head is hidden.
        teacher: of the same N positions, over the same temperature; its width, the shared vocabulary, decides how many
            columns of the student's head take part.
        labels: (N) int64, the token that follows each position; none of them -100.
        objective: temperature, weights of both terms, and which divergence D.
        weight: a factor on the loss; 1 over the tokens of the whole step gives the mean.
        chunk_rows: positions at a time; from the vocabulary and BUDGET where None.
        shown: indices into N, ascending, of the positions on a card.
    """
    rows = chunk_rows or chunk_rows_for(teacher.width, student.dtype.itemsize)
    work = FusedPass(labels, teacher, objective=objective, weight=weight, chunk_rows=rows, shown=shown)
    signal = student.signal(temperature=objective.temperature, width=teacher.width, unit=work.unit)
    with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
        found = work.run(signal)
    loss = _HandOut.apply(found.loss, signal.gradients, *student.leaves)  # type: ignore[no-untyped-call]
    return replace(found, loss=loss)


class _HandOut(torch.autograd.Function):
    """An autograd function of the leaves whose gradients are computed already: backward only returns them."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor | None, ...], *leaves: Tensor | None) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients, [None if leaf is None else leaf.dtype for leaf in leaves]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # nobody else holds them: a parameter takes its own uncopied
        if gradients is None:
            raise RuntimeError("the fused loss hands out its gradients once: compute it again for a second backward")
        return None, None, *(_times(g, outer[0], dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True))


def _times(gradient: Tensor | None, factor: Tensor, dtype: torch.dtype) -> Tensor | None:
    if gradient is None:
        return None
    is_one = factor.device.type == "cpu" and factor.item() == 1
    return (gradient if is_one else gradient.mul_(factor)).to(dtype)
