"""A teacher with a tokenizer of its own: it reads the same rows in its own tokens.

Knows models, tokenizers and batches; knows nothing of how spans are compared.
"""

from typing import Any

import torch
from torch import nn

from apt_model.config import DistillConfig
from apt_model.data.alignment import common_beginnings
from apt_model.data.batch import Batch
from apt_model.data.encode import IGNORED, OR_CROSS, differing_ids, refuse_other_tokenizer
from apt_model.distill.losses.cross_vocabulary import Beginnings, CrossedLogits
from apt_model.distill.losses.logit_blocks import Signal
from apt_model.distill.teachers.live import LiveTeacher, TeacherSource
from apt_model.errors import ConfigError, DataError, ModelError
from apt_model.events.records import ModelCard
from apt_model.models.forward import vocabulary_of


class CrossTeacher:
    """A teacher model that answers in person to batches that hold the rows in its own tokens too.

    Args:
        model: the teacher.
        device: where its answers are wanted.
        place: where it computes them, the same if None.
        tokenizer: its own.
        student_tokenizer: the student's.
        student: whose head's width tells which tokens it can have.
        config: how answers in another vocabulary are compared.
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
        config: DistillConfig,
    ) -> None:
        self._config = config
        self._live = LiveTeacher(model, device, place)
        self._found = common_beginnings(student_tokenizer, tokenizer)
        self._student_width = vocabulary_of(student) or len(student_tokenizer)
        self._beginnings: Beginnings | None = None

    @property
    def card(self) -> ModelCard:
        """What the model is, in numbers."""
        return self._live.card

    @property
    def model(self) -> nn.Module:
        """The teacher itself."""
        return self._live.model

    @property
    def vocabulary(self) -> int:
        """Tokens that both have."""
        return self._found[0]

    def begin(self, config: DistillConfig) -> None:
        """A model has an answer to everything."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot take."""
        theirs = batch.teachers
        if theirs is None:
            raise DataError("a batch lacks the teacher's tokens", fix="give rows of text and both tokenizers")
        labels = theirs.input_ids.masked_fill(theirs.attention_mask == 0, IGNORED)
        self._live.check(Batch(input_ids=theirs.input_ids, attention_mask=theirs.attention_mask, labels=labels))

    def logits(self, batch: Batch) -> CrossedLogits:
        """The teacher's logits over its own tokens, for a batch that `check` let pass."""
        theirs = batch.teachers
        assert theirs is not None  # noqa: S101 - `check` let it pass
        own = Batch(input_ids=theirs.input_ids, attention_mask=theirs.attention_mask, labels=theirs.input_ids)
        logits = self._live.logits(own)
        if self._beginnings is None:
            widths = {"student_width": self._student_width, "teacher_width": logits.shape[-1]}
            self._beginnings = Beginnings.of(self._found, **widths).to(logits.device)
        return CrossedLogits(
            logits=logits,
            beginnings=self._beginnings,
            kind=self._config.cross_tokenizer,
            temperature=self._config.temperature,
        )

    def signal(
        self, batch: Batch, positions: torch.Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> Signal:
        """There is none for the fused loss, whose positions are those of one vocabulary."""
        raise ModelError("a teacher with another vocabulary has no signal at the student's positions")


def others_tokenizer(
    config: DistillConfig, teacher: nn.Module | TeacherSource, tokenizer: Any, teacher_tokenizer: Any
) -> Any:
    """The teacher's tokenizer, where it is another one than the student's and that was asked for; else None.

    Raises:
        DataError: it is another, and nobody asked for it; names the first ids that differ.
        ConfigError: it was asked for, but one of the two is not known, or the teacher is a cache.
    """
    if config.cross_tokenizer == "refuse":
        refuse_other_tokenizer(teacher_tokenizer, tokenizer, fix=OR_CROSS)
        return None
    if tokenizer is None or teacher_tokenizer is None:
        lacks = "tokenizer" if tokenizer is None else "teacher_tokenizer"
        raise ConfigError("cross_tokenizer needs the tokenizers of both", got=f"no {lacks}", fix=f"pass {lacks}=")
    if not differing_ids(teacher_tokenizer, tokenizer):
        return None
    if not isinstance(teacher, nn.Module):
        fix = "give the teacher itself"
        raise ConfigError(
            "a cached teacher knows one tokenizer only", got=f"cross_tokenizer={config.cross_tokenizer}", fix=fix
        )
    return teacher_tokenizer
