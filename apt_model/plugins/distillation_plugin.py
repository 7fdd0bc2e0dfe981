"""Standard distillation: the same training as the visual plugin, shown as plain numbers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.config import LessonConfig
from apt_model.distill.inputs import Data, Models
from apt_model.distill.teachers.live import TeacherSource
from apt_model.events.records import RunFinished
from apt_model.events.sinks import Guard, Sink
from apt_model.plugins.given import Given
from apt_model.plugins.session import RunFolder, Viewers, run_session
from apt_model.render.log import LogSink


class DistillationPlugin:
    """Trains a student from a teacher and logs numbers.

    Args:
        config: flat keys as in the guide (`temperature`, `alpha`, `beta`, ...), a `LessonConfig`, or an object such as
            transformers' `TrainingArguments`.

    Raises:
        ConfigError: names every unknown key and bad value at once.
    """

    def __init__(self, config: Mapping[str, Any] | LessonConfig | object = None) -> None:
        self._given = Given.of(config)
        self.config = self._given.config

    def distill_model(
        self,
        student_model: nn.Module,
        teacher_model: nn.Module | TeacherSource,
        train_dataloader: Iterable[Any],
        optimizer: Optimizer | None = None,
        tokenizer: Any = None,
        num_epochs: int | None = None,
        device: str | torch.device | None = None,
        *,
        teacher_tokenizer: Any = None,
        eval_dataloader: Iterable[Any] | None = None,
        scheduler: LRScheduler | None = None,
        run_dir: str | Path | None = None,
        resume_from: str | Path | None = None,
        resume_anyway: bool = False,
        branch_from: str | Path | None = None,
        branch_at: int | None = None,
        data_names: Sequence[str] = (),
        sinks: Sequence[Sink] | None = None,
    ) -> RunFinished:
        """Train `student_model` in place; arguments as in `VisualDistillationPlugin.visual_distill_model`."""
        guard, display = Guard(), self.config.display
        if sinks is None:
            log = guard.run("LogSink", lambda: LogSink(display.lang, every=display.sample_frequency), None)
            sinks = [log] if log is not None else []
        return run_session(
            self._given.with_call(num_epochs=num_epochs, device=device),
            Models(
                student=student_model,
                teacher=teacher_model,
                tokenizer=tokenizer,
                teacher_tokenizer=teacher_tokenizer,
                optimizer=optimizer,
                scheduler=scheduler,
            ),
            Data(train=train_dataloader, validation=eval_dataloader, names=data_names),
            folder=RunFolder.of(
                run_dir if run_dir is not None else self._given.run_dir,
                resume_from,
                resume_anyway,
                branch_from=branch_from,
                branch_at=branch_at,
            ),
            viewers=Viewers(sinks=sinks, scorer=None, guard=guard, notices=self._given.notices),
        )
