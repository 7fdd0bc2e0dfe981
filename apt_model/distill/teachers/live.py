"""Where the teacher's signal comes from. Knows nothing of losses, students or lessons."""

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from apt_model.config import DistillConfig
from apt_model.data.batch import Batch
from apt_model.distill.losses.cross_vocabulary import CrossedLogits
from apt_model.distill.losses.logit_blocks import Buffer, HeadSignal, MovedSignal, Signal, TensorSignal
from apt_model.distill.losses.topk_logits import SparseLogits
from apt_model.events.records import ModelCard
from apt_model.models.devices import move
from apt_model.models.forward import Forward, model_card, vocabulary_of
from apt_model.models.output_head import OutputHead, find_head


class TeacherSource(Protocol):
    """Says what the teacher thinks of a batch, whether it is live or cached."""

    @property
    def card(self) -> ModelCard:
        """What the teacher is, in numbers."""

    @property
    def model(self) -> nn.Module | None:
        """The teacher itself, where it is there and can be asked."""

    @property
    def vocabulary(self) -> int | None:
        """Tokens that the teacher chooses among, where it tells."""

    def begin(self, config: DistillConfig) -> None:
        """Refuse a run whose loss needs what the teacher cannot say."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""

    def logits(self, batch: Batch) -> Tensor | SparseLogits | CrossedLogits:
        """The teacher's logits (B, L, V) for a batch on the training device, without gradient; of its likeliest tokens
        only; or over its own tokens."""

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
    """A teacher model that answers in person.

    Args:
        model: the teacher, in any float dtype, or quantized.
        device: where its answers are wanted.
        place: where it computes them, the same if None; one that cannot be moved stays where it is.
    """

    def __init__(self, model: nn.Module, device: torch.device, place: torch.device | None = None) -> None:
        self._model, self._device = model, device
        self._place = move(model, place or device)
        self._forward = Forward(model, "teacher")
        self._buffer = Buffer()

    @property
    def card(self) -> ModelCard:
        """What the model is, in numbers."""
        return model_card(self._model)

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self._model

    @property
    def vocabulary(self) -> int | None:
        """Columns of its head, or rows of its embedding, where it names one of them."""
        return vocabulary_of(self._model)

    def begin(self, config: DistillConfig) -> None:
        """A model has an answer to everything."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""
        self._forward.check(batch)

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """The teacher's logits (B, L, V)."""
        return self._forward(self._model, batch.to(self._place)).to(self._device)

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
            logits = self.logits(batch).flatten(0, 1)
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
    """A model as a teacher that answers in person, from `place`; a source as it is."""
    return LiveTeacher(teacher, device, place) if isinstance(teacher, nn.Module) else teacher
