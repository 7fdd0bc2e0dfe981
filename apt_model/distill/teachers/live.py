"""The `TeacherSource` protocol, and the teacher source that runs a live model.

Knows how logits are obtained; knows nothing of losses, students or lessons.
"""

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from apt_model.config.sections import DistillConfig
from apt_model.data.batch import Batch
from apt_model.distill.losses.logit_blocks import Buffer, HeadSignal, MovedSignal, Signal, TensorSignal
from apt_model.distill.losses.teacher_logits import DenseLogits, TeacherLogits
from apt_model.events.records import ModelCard
from apt_model.models.devices import move
from apt_model.models.fingerprints import hash_weights
from apt_model.models.forward import Forward, model_card, vocabulary_of
from apt_model.models.output_head import OutputHead, find_head


class TeacherSource(Protocol):
    """Gives the teacher's logits for a batch, whether from a live model or a cache."""

    @property
    def card(self) -> ModelCard:
        """Summary of the teacher: class, parameters, megabytes, layers, width."""

    @property
    def model(self) -> nn.Module | None:
        """The teacher model; None for a cache."""

    @property
    def vocabulary(self) -> int | None:
        """Size of the teacher's vocabulary; None if unknown."""

    def begin(self, config: DistillConfig) -> None:
        """Refuse a run whose settings need what this source cannot give.

        Raises:
            ConfigError: names the setting.
        """

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""

    def logits(self, batch: Batch) -> Tensor | TeacherLogits:
        """The teacher's logits for a batch on the training device, without gradient.

        Dense, as a tensor (B, L, V) or `DenseLogits`; the top-k alone (`SparseLogits`); or over another vocabulary
        (`CrossedLogits`).
        """

    def signal(
        self, batch: Batch, positions: Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> Signal:
        """The teacher's logits at N positions of a batch on the training device, block by block, for the fused loss.

        Args:
            batch: the batch.
            positions: (N) int64, indices into its B · L tokens.
            temperature: divides the logits.
            columns: at most so many columns of the logits are used.
            dtype: of the head's matrix product; None: the weight's own.
        """


class LiveTeacher:
    """A teacher source that runs the model for every batch.

    Args:
        model: the teacher, in any float dtype, or quantized.
        device: where its logits are needed.
        place: where it computes them; None: the same. A model that cannot be moved stays where it is.
    """

    def __init__(self, model: nn.Module, device: torch.device, place: torch.device | None = None) -> None:
        self._model, self._device = model, device
        self._place = move(model, place or device)
        self._forward = Forward(model, "teacher")
        self._buffer = Buffer()

    @property
    def card(self) -> ModelCard:
        """Summary of the model: class, parameters, megabytes, layers, width."""
        return model_card(self._model)

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """Hash of its weights."""
        return hash_weights(self._model)

    @property
    def vocabulary(self) -> int | None:
        """Columns of its head, or rows of its embedding; None if it names neither."""
        return vocabulary_of(self._model)

    def begin(self, config: DistillConfig) -> None:
        """Nothing to refuse: a model can give everything that settings may need."""

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
        """Logits at N positions: by the head, block by block, or from full logits if no head was found."""
        head = self._head
        if head is None:
            logits = self.logits(batch).logits.flatten(0, 1)
            known: Tensor | None = positions
            if 2 * len(positions) < len(logits):  # fewer than half are needed: copy those, and free the rest
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
    """Wrap a model as `LiveTeacher` on `place`; a teacher source is returned as it is."""
    return LiveTeacher(teacher, device, place) if isinstance(teacher, nn.Module) else teacher
