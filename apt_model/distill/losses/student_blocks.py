"""Student logits a chunk at a time, with their backward pass: gradients of hidden states and head, or of the logits.

As `logit_blocks`, with gradients; knows nothing of divergences, autograd's graph or labels. The gradients of logits
come without the loss's constant factor, `unit`, which is multiplied in here.
"""

from typing import Protocol

import torch
from torch import Tensor

from apt_model.distill.losses.logit_blocks import Buffer, HeadSignal, TensorSignal
from apt_model.models.output_head import OutputHead
from apt_model.models.wide_matmul import product_of

FLOAT16_ROOM = 1024.0  # gradients of a softmax are too small for float16's range


class LearningSignal(Protocol):
    """Protocol of the student's logits at N positions, read a block at a time, which collects their gradients."""

    @property
    def gradients(self) -> tuple[Tensor | None, ...]:
        """Gradients of the leaves; None for a leaf that requires none."""

    def begin(self, start: int, stop: int) -> None:
        """Prepare the chunk of positions start to stop."""

    def block(self, first: int, last: int) -> Tensor:
        """Logits / T (R, padded width) of positions first to last of the chunk."""

    def put_gradient(self, first: int, last: int, gradient: Tensor, *, logits: Tensor, spare: Tensor) -> None:
        """Take a block's gradient with respect to the undivided logits; `logits` is the block itself.

        `gradient` and `spare`, both (R, padded width), may be overwritten.
        """

    def leave(self) -> None:
        """Add the gradients of the chunk to those of the leaves."""


class LearningLogits(TensorSignal):
    """The full logits (M, V) of a student, with their gradient.

    Args:
        logits, temperature, width, positions: as in `TensorSignal`.
        unit: a factor on the gradients.
        learns: whether there is to be a gradient.
    """

    def __init__(
        self, logits: Tensor, *, temperature: float, width: int, positions: Tensor | None, unit: float, learns: bool
    ) -> None:
        super().__init__(logits, temperature=temperature, width=width, positions=positions)
        self._unit = unit
        # float16's gradients wait in float32 for the factor that lifts them into its range
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        self.gradients = (torch.zeros_like(logits, dtype=dtype) if learns else None,)

    def put_gradient(self, first: int, last: int, gradient: Tensor, *, logits: Tensor, spare: Tensor) -> None:
        """Write the block's gradient into that of the logits, the only tensor of their size that is allocated."""
        (into,) = self.gradients
        if into is not None:
            rows = gradient[:, : self.width].mul_(self._unit)
            into[:, : self.width].index_copy_(0, self._places(first, last), rows.to(into.dtype))

    def leave(self) -> None:
        """Nothing to do: `put_gradient` has written all."""


class LearningHead(HeadSignal):
    """Logits computed by a student's head, with gradients of hidden states (N, H), weight (V, H) and bias (V).

    Args:
        hidden, head, temperature, width, dtype, buffer: as in `HeadSignal`.
        unit: a factor on the gradients.
        learns: which of hidden states, weight and bias are to get one.
    """

    def __init__(
        self,
        hidden: Tensor,
        head: OutputHead,
        *,
        temperature: float,
        width: int,
        dtype: torch.dtype,
        buffer: Buffer | None,
        unit: float,
        learns: tuple[bool, bool, bool],
    ) -> None:
        super().__init__(hidden, head, temperature=temperature, width=width, dtype=dtype, buffer=buffer)
        weight, device = head.linear.weight, hidden.device
        self._room = FLOAT16_ROOM if dtype == torch.float16 else 1.0
        self._unit, self._has_left = unit / self._room, False
        fresh = torch.empty if width == len(weight) and len(hidden) else torch.zeros  # columns beyond `width` get 0
        self.gradients = (
            torch.empty(hidden.shape, dtype=torch.float32, device=device) if learns[0] else None,
            fresh(weight.shape, dtype=torch.float32, device=device) if learns[1] else None,
            torch.zeros(len(weight), dtype=torch.float32, device=device) if learns[2] else None,
        )

    def put_gradient(self, first: int, last: int, gradient: Tensor, *, logits: Tensor, spare: Tensor) -> None:
        """Store the block's gradient in the buffer, over its logits."""
        if self.softcap is not None:
            # z = cap · tanh(x / cap), so dz/dx = 1 − (z / cap)²; `logits` are z / T
            slope = torch.mul(logits, logits, out=spare).mul_(-((self._temperature / self.softcap) ** 2)).add_(1)
            gradient.mul_(slope)
        rows = self._buffer[first:last]
        if gradient.data_ptr() != rows.data_ptr():
            torch.mul(gradient, self._room, out=rows)

    def leave(self) -> None:
        """With G, the gradients of a chunk's logits: hidden = G W, weight += Gᵀ h, bias += Σ G, all in float32."""
        rows, unit = self._buffer[: self._stop - self._start, : self.width], self._unit
        hidden, weight, bias = self.gradients
        with product_of(self._input, self._weight):
            if hidden is not None:
                target = hidden[self._start : self._stop]
                if self._is_float32:
                    torch.mm(rows, self._weight, out=target).mul_(unit * self._scale)
                else:
                    torch.mul(torch.mm(rows, self._weight), unit * self._scale, out=target)
            if weight is not None:
                self._add_to_weight(weight[: self.width], rows, unit * self._scale / self._before)
        if bias is not None:
            bias[: self.width].add_(rows.sum(dim=0, dtype=torch.float32), alpha=unit * self._scale)
        self._has_left = True

    def _add_to_weight(self, weight: Tensor, rows: Tensor, factor: float) -> None:
        """The first chunk overwrites the gradient, so that it need not be zeroed before."""
        if self._is_float32:
            weight.addmm_(rows.t(), self._input, beta=float(self._has_left), alpha=factor)
        elif self._has_left:
            weight.add_(torch.mm(rows.t(), self._input), alpha=factor)
        else:
            torch.mul(torch.mm(rows.t(), self._input), factor, out=weight)
