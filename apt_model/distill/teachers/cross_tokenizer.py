"""A teacher source for cross-tokenizer distillation: the teacher reads the rows in its own tokens.

Knows models, tokenizers and batches; knows nothing of how spans are compared.
"""

from typing import Any

import torch
from torch import nn

from apt_model.config.sections import DistillConfig
from apt_model.data.alignment import common_beginnings
from apt_model.data.batch import Batch
from apt_model.data.encode import OR_CROSS, differing_ids, refuse_other_tokenizer
from apt_model.distill.losses.cross_vocabulary import Beginnings, CrossedLogits
from apt_model.distill.losses.logit_blocks import Signal
from apt_model.distill.teachers.live import LiveTeacher, TeacherSource
from apt_model.errors import ConfigError, DataError, ModelError
from apt_model.events.records import ModelCard
from apt_model.models.forward import vocabulary_of


class CrossTeacher:
    """A live teacher with another tokenizer than the student's, for batches that have `teachers` rows.

    Args:
        model: the teacher.
        device: where its logits are needed.
        place: where it computes them; None: the same.
        tokenizer: the teacher's.
        student_tokenizer: the student's.
        student: its head gives the number of logit columns.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        place: torch.device | None = None,
        *,
        tokenizer: Any,
        student_tokenizer: Any,
        student: nn.Module,
    ) -> None:
        self._live = LiveTeacher(model, device, place)
        self._found = common_beginnings(student_tokenizer, tokenizer)
        self._student_width = vocabulary_of(student) or len(student_tokenizer)
        self._beginnings: Beginnings | None = None

    @property
    def card(self) -> ModelCard:
        """Summary of the model: class, parameters, megabytes, layers, width."""
        return self._live.card

    @property
    def model(self) -> nn.Module:
        """The teacher model."""
        return self._live.model

    @property
    def fingerprint(self) -> str:
        """Hash of the model's weights."""
        return self._live.fingerprint

    @property
    def vocabulary(self) -> int:
        """Number of token texts that both tokenizers have."""
        return self._found[0]

    def begin(self, config: DistillConfig) -> None:
        """Nothing to refuse: `cross_tokenizer` has been checked with the tokenizers."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot read.

        Raises:
            DataError: it has no rows in the teacher's tokens, or `Forward.check` refuses them.
        """
        if batch.teachers is None:
            raise DataError("a batch lacks the teacher's tokens", fix="give rows of text and both tokenizers")
        self._live.check(batch.for_teacher)

    def logits(self, batch: Batch) -> CrossedLogits:
        """The teacher's logits over its own vocabulary, for a batch that `check` let pass."""
        logits = self._live.logits(batch.for_teacher).logits
        if self._beginnings is None:
            widths = {"student_width": self._student_width, "teacher_width": logits.shape[-1]}
            self._beginnings = Beginnings.of(self._found, **widths).to(logits.device)
        return CrossedLogits(logits=logits, beginnings=self._beginnings)

    def signal(
        self, batch: Batch, positions: torch.Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> Signal:
        """Not available: the fused loss compares position by position over one vocabulary."""
        raise ModelError("a teacher with another tokenizer has no logits at the student's positions")


def teachers_own_tokenizer(
    config: DistillConfig, teacher: nn.Module | TeacherSource, tokenizer: Any, teacher_tokenizer: Any
) -> Any:
    """The teacher's tokenizer if it differs from the student's and `cross_tokenizer` allows that; else None.

    Raises:
        DataError: they differ and `cross_tokenizer` is "refuse"; names the first ids that differ.
        ConfigError: `cross_tokenizer` is set, but one of the two is missing, or the teacher is a cache.
    """
    if config.cross_tokenizer == "refuse":
        refuse_other_tokenizer(teacher_tokenizer, tokenizer, fix=OR_CROSS)
        return None
    if tokenizer is None or teacher_tokenizer is None:
        lacks = "tokenizer" if tokenizer is None else "teacher_tokenizer"
        raise ConfigError("cross_tokenizer needs both models' tokenizers", got=f"no {lacks}", fix=f"pass {lacks}=")
    if not differing_ids(teacher_tokenizer, tokenizer):
        return None
    if not isinstance(teacher, nn.Module):
        fix = "pass the teacher model instead of its cache"
        raise ConfigError(
            "a cached teacher cannot be used with another tokenizer",
            got=f"cross_tokenizer={config.cross_tokenizer}",
            fix=fix,
        )
    return teacher_tokenizer
