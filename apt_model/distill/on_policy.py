"""On-policy steps: the student goes on from the beginnings of a batch's rows, and learns what the teacher makes of it.

So it learns where it goes by itself, and not only where the data leads it. Knows which steps those are and how the
text is written; knows nothing of losses.
Source: Agarwal et al. 2024 (GKD), arXiv:2306.13649, section 3.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from apt_model.config import DistillConfig, LessonConfig
from apt_model.data.batch import Batch
from apt_model.data.encode import IGNORED
from apt_model.data.prompts import beginning
from apt_model.distill.batches import Window
from apt_model.distill.out_of_memory import explained_out_of_memory
from apt_model.errors import ModelError
from apt_model.models.forward import limits
from apt_model.models.generate import draw
from apt_model.models.modes import in_eval_mode


class OnPolicy:
    """Has the student write its own batches.

    What it draws comes from torch's own generator, as dropout does: a checkpoint keeps it. Which steps are on-policy
    follows from the seed and the number of the step alone, so that all processes and a resumed run agree.

    Args:
        config: which share of the steps, how many tokens, at which temperature.
        student, teacher: the models themselves.
        accelerator: casts.
        tokenizer: knows what ends a text; may be None.
        vocabulary: tokens that both choose among, where that is known; no other is written.
        seed: of the choice of steps.

    Raises:
        ModelError: the student cannot write.
    """

    def __init__(
        self,
        config: DistillConfig,
        *,
        student: nn.Module,
        teacher: nn.Module,
        accelerator: Accelerator,
        tokenizer: Any,
        vocabulary: int | None,
        seed: int,
    ) -> None:
        if not hasattr(student, "generate"):
            raise ModelError(
                "the student cannot write texts to learn from",
                got=type(student).__name__,
                expected="generate()",
                fix="on_policy=0",
            )
        self._config, self._seed = config, seed
        self._accelerator, self._tokenizer, self._vocabulary = accelerator, tokenizer, vocabulary
        self._positions = min((most for _, most in map(limits, (student, teacher)) if most is not None), default=None)

    @classmethod
    def wanted(
        cls, config: LessonConfig, student: nn.Module, teacher: nn.Module | None, **knows: Any
    ) -> "OnPolicy | None":
        """One where `on_policy` is above 0 and the teacher model itself is there; `knows` goes to the class."""
        if teacher is None or not config.distill.on_policy:
            return None
        return cls(config.distill, student=student, teacher=teacher, seed=config.train.seed or 0, **knows)

    @property
    def notice(self) -> tuple[str, dict[str, str | int]]:
        """How much of the run is on-policy, as a notice's key and values."""
        share, most = self._config.on_policy, self._config.on_policy_tokens
        return "notice.on_policy", {"percent": f"{100 * share:g}", "tokens": most}

    def window(self, student: nn.Module, window: Window, *, step: int) -> Window:
        """The batches of optimizer step `step`: those of the data, or where it is on-policy the student's own texts."""
        if not self.is_due(step):
            return window
        with explained_out_of_memory(step, [batch for _, batch in window]):
            return [(index, self.write(student, batch)) for index, batch in window]

    def is_due(self, step: int) -> bool:
        """Whether optimizer step `step`, from 1, learns from the student's own texts."""
        return random.Random(f"{self._seed}/{step}").random() < self._config.on_policy

    def write(self, student: nn.Module, batch: Batch) -> Batch:
        """What the student writes after the beginnings of a batch's rows, on the CPU.

        A batch without labels comes back as it is; a row without labels, or with a beginning that leaves no room, is
        left out.
        """
        rows = zip(batch.input_ids, batch.labels, batch.attention_mask, strict=True)
        room, most = self._positions, self._config.on_policy_tokens
        prompts = [prompt for row in rows if (prompt := beginning(*row)) and (room is None or len(prompt) < room)]
        if not prompts:
            return batch
        model: Any = extract_model_from_parallel(student)
        with in_eval_mode(model), self._accelerator.autocast():
            written = draw(
                model,
                self._tokenizer,
                prompts,
                new_tokens=most if room is None else min(most, room - max(map(len, prompts))),
                temperature=self._config.on_policy_temperature,
                vocabulary=self._vocabulary,
            )
        return written_batch(prompts, written)


def written_batch(prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]) -> Batch:
    """Prompts and what was written after each, padded on the right; labels are on what was written alone."""
    pairs = list(zip(prompts, written, strict=True))
    return Batch(
        input_ids=_padded([[*prompt, *own] for prompt, own in pairs], 0),
        attention_mask=_padded([[1] * (len(prompt) + len(own)) for prompt, own in pairs], 0),
        labels=_padded([[IGNORED] * len(prompt) + list(own) for prompt, own in pairs], IGNORED),
        is_written=True,
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=value)
