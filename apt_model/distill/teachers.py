"""Where the teacher's signal comes from. Knows nothing of losses, students or lessons."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from apt_model.distill.forward import Forward
from apt_model.distill.heads import OutputHead, find_head
from apt_model.distill.signals import HeadSignal, Signal, TensorSignal
from apt_model.training.batch import Batch


class TeacherSource(Protocol):
    """Says what the teacher thinks of a batch; a loss never knows whether the teacher is live or cached."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""

    def logits(self, batch: Batch) -> Tensor:
        """The teacher's logits (B, L, V) for a batch on the training device, without gradient."""

    def signal(
        self, batch: Batch, positions: Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> Signal:
        """What the teacher says at N positions of a batch on the training device, for the fused loss.

        Args:
            batch: the batch.
            positions: (N) int64, indices into its B · L tokens.
            temperature: to divide logits by.
            columns: at most so many of the vocabulary.
            dtype: of the head's product; its own where None.
        """


class LiveTeacher:
    """A teacher model that answers in person, on `device`."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model.to(device)
        self._forward = Forward(model, "teacher")

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""
        self._forward.check(batch)

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """The teacher's logits (B, L, V)."""
        return self._forward(self._model, batch)

    @cached_property
    def _head(self) -> OutputHead | None:
        return find_head(self._model)

    @torch.no_grad()
    def signal(
        self, batch: Batch, positions: Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> Signal:
        """What the teacher says at N positions: through its head, or from its whole logits where it hides that."""
        head = self._head
        if head is None:
            logits = self.logits(batch).flatten(0, 1).index_select(0, positions)
            return TensorSignal(logits, temperature=temperature, width=min(columns, logits.shape[-1]))
        hidden = self._forward.hidden(self._model, batch, head).flatten(0, 1).index_select(0, positions)
        width = min(columns, head.linear.out_features)
        return HeadSignal(hidden, head, temperature=temperature, width=width, dtype=dtype)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; each of its modules in its own mode again, afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def frozen(teacher: nn.Module) -> Iterator[None]:
    """The teacher in eval mode and without gradients; as it was before, afterwards."""
    gradients = {parameter: parameter.requires_grad for parameter in teacher.parameters()}
    teacher.requires_grad_(False)
    try:
        with in_eval_mode(teacher):
            yield
    finally:
        for parameter, requires_grad in gradients.items():
            parameter.requires_grad_(requires_grad)
