"""On-policy distillation: in some steps the student learns from the teacher on text that it has sampled itself.

So it is trained on the contexts that it gets into by itself, not only on those of the data. Knows which steps are
on-policy and how texts are sampled; knows nothing of losses.
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

from apt_model.config import LessonConfig
from apt_model.config.sections import DistillConfig
from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.data.prompts import beginning
from apt_model.distill.batches import Window
from apt_model.distill.out_of_memory import explained_out_of_memory
from apt_model.errors import ModelError
from apt_model.models.forward import limits
from apt_model.models.generate import draw
from apt_model.models.modes import in_eval_mode


class OnPolicy:
    """Replaces a step's batches by samples of the student.

    Samples are drawn with torch's global generator, like dropout, so a checkpoint keeps its state. Which steps are
    on-policy follows from the seed and the step number alone, so that all processes and a resumed run agree.

    Args:
        config: share of on-policy steps, tokens of a sample, sampling temperature.
        student, teacher: the models.
        accelerator: has the autocast.
        tokenizer: has the EOS token; may be None.
        vocabulary: ids from here on are never sampled; None: no limit.
        seed: of the choice of steps.

    Raises:
        ModelError: the student has no `generate()`.
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
                "the student cannot generate texts to learn from",
                got=type(student).__name__,
                expected="generate()",
                fix="set on_policy=0",
            )
        self._config, self._seed = config, seed
        self._accelerator, self._tokenizer, self._vocabulary = accelerator, tokenizer, vocabulary
        self._positions = min((most for _, most in map(limits, (student, teacher)) if most is not None), default=None)

    @classmethod
    def wanted(
        cls,
        config: LessonConfig,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        accelerator: Accelerator,
        tokenizer: Any,
        vocabulary: int | None,
    ) -> "OnPolicy | None":
        """An instance if `on_policy` is above 0 and the teacher is a model."""
        if teacher is None or not config.distill.on_policy:
            return None
        return cls(
            config.distill,
            student=student,
            teacher=teacher,
            accelerator=accelerator,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            seed=config.train.seed or 0,
        )

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
        """Whether optimizer step `step`, from 1, is on-policy."""
        return random.Random(f"{self._seed}/{step}").random() < self._config.on_policy

    def write(self, student: nn.Module, batch: Batch) -> Batch:
        """Sample a completion of each text's prompt: a batch on the CPU whose labels are the sampled tokens.

        A text without labels, or whose prompt fills all positions, is left out; a batch without any other row is
        returned as it is.
        """
        texts = batch.apart
        rows = zip(texts.input_ids, texts.labels, texts.attention_mask, strict=True)
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
    """A batch of prompts with their samples, padded on the right; only sampled tokens have a label."""
    pairs = list(zip(prompts, written, strict=True))
    return Batch(
        input_ids=_padded([[*prompt, *sample] for prompt, sample in pairs], 0),
        attention_mask=_padded([[1] * (len(prompt) + len(sample)) for prompt, sample in pairs], 0),
        labels=_padded([[IGNORED] * len(prompt) + list(sample) for prompt, sample in pairs], IGNORED),
        is_written=True,
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=value)
