"""Teacher models in memory, and the Protocol that every teacher meets. Knows nothing of losses, students or lessons."""

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from apt_model.config import DistillConfig
from apt_model.data.batch import Batch
from apt_model.distill.losses.logit_blocks import Buffer, HeadSignal, MovedSignal, Signal, TensorSignal
from apt_model.distill.losses.teacher_logits import DenseLogits, TeacherLogits
from apt_model.events.records import ModelCard
from apt_model.models.devices import move
from apt_model.models.forward import Forward, model_card, vocabulary_of
from apt_model.models.output_head import OutputHead, find_head


class TeacherSource(Protocol):
    """A teacher, live or cached: its signal for a batch."""

    @property
    def card(self) -> ModelCard:
        """The teacher's name and sizes."""

    @property
    def model(self) -> nn.Module | None:
        """The model itself; None for a cache."""

    @property
    def vocabulary(self) -> int | None:
        """Size of the teacher's vocabulary; None where the model does not tell."""

    def begin(self, config: DistillConfig) -> None:
        """Refuse a run whose loss needs more than this teacher has."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""

    def logits(self, batch: Batch) -> TeacherLogits:
        """The teacher's logits for a batch on the training device, without gradient."""

    def signal(
        self, batch: Batch, positions: Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> Signal:
        """The teacher's logits at N positions of a batch on the training device, for the fused loss.

        Args:
            batch: the batch.
            positions: (N) int64, indices into its B · L tokens.
            temperature: to divide logits by.
            columns: at most so many of the vocabulary.
            dtype: of the head's product; its own where None.
        """


class LiveTeacher:
    """A teacher model in memory.

    Args:
        model: the teacher, in any float dtype, or quantized.
        device: where its logits are wanted.
        place: where it computes them, the same if None; one that cannot be moved stays where it is.
    """

    def __init__(self, model: nn.Module, device: torch.device, place: torch.device | None = None) -> None:
        self._model, self._device = model, device
        self._place = move(model, place or device)
        self._forward = Forward(model, "teacher")
        self._buffer = Buffer()

    @property
    def card(self) -> ModelCard:
        """The model's name and sizes."""
        return model_card(self._model)

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self._model

    @property
    def vocabulary(self) -> int | None:
        """Columns of its head, or rows of its embedding; None where it names neither."""
        return vocabulary_of(self._model)

    def begin(self, config: DistillConfig) -> None:
        """Nothing to refuse: a model can do every loss."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""
        self._forward.check(batch)

    @torch.no_grad()
    def logits(self, batch: Batch) -> DenseLogits:
        """All logits (B, L, V)."""
        return DenseLogits(self._forward(self._model, batch.to(self._place)).to(self._device))

    @cached_property
    def _head(self) -> OutputHead | None:
        return find_head(self._model)

    @torch.no_grad()
    def signal(
        self, batch: Batch, positions: Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> Signal:
        """Logits at N positions: through its head, or from its whole logits where it hides that."""
        head = self._head
        if head is None:
            logits = self.logits(batch).logits.flatten(0, 1)
            known: Tensor | None = positions
            if 2 * len(positions) < len(logits):  # most of them need not be kept
                logits, known = logits.index_select(0, positions), None
            width = min(columns, logits.shape[-1])
            return TensorSignal(logits, temperature=temperature, width=width, positions=known)
        hidden = self._forward.hidden(self._model, batch.to(self._place), head).flatten(0, 1)
        hidden, width = hidden.index_select(0, positions.to(hidden.device)), min(columns, head.linear.out_features)
        signal = HeadSignal(hidden, head, temperature=temperature, width=width, dtype=dtype, buffer=self._buffer)
        return signal if self._place == self._device else MovedSignal(signal, self._device)


def as_source(
    teacher: nn.Module | TeacherSource, device: torch.device, place: torch.device | None = None
) -> TeacherSource:
    """A model as a `LiveTeacher` at `place`; a source as it is."""
    return LiveTeacher(teacher, device, place) if isinstance(teacher, nn.Module) else teacher
