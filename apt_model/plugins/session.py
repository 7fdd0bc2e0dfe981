"""What both plugins do around the loop: settings, device, record, and keeping the student.

Knows nothing of cards or remarks: the plugins differ only in the scorer and the sinks they pass in.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.config import LessonConfig
from apt_model.distill.loop import distill
from apt_model.distill.setup import pick_device
from apt_model.distill.teachers import TeacherSource
from apt_model.errors import ConfigError, DeviceError
from apt_model.events.records import RunFinished
from apt_model.events.runfile import STUDENT, RunFile
from apt_model.events.sinks import Audience, Guard, Scorer, Sink
from apt_model.i18n import Phrases
from apt_model.training.checkpoint import save_model

CALL_ARGUMENTS = ("num_epochs", "device")


def read_config(config: Mapping[str, Any] | LessonConfig | None) -> LessonConfig:
    """A plugin's settings.

    Raises:
        ConfigError: an unknown or bad setting, or one that belongs to the call.
    """
    if not isinstance(config, LessonConfig):
        misplaced = [key for key in CALL_ARGUMENTS if key in (config or {})]
        if misplaced:
            fix = "pass it to the call, e.g. num_epochs=3"
            raise ConfigError(f"{', '.join(misplaced)} cannot be in config", fix=fix)
        config = LessonConfig.from_dict(config)
    Phrases.load(config.display.lang)
    return config


def run_session(
    *,
    config: LessonConfig,
    student_model: nn.Module,
    teacher_model: nn.Module | TeacherSource,
    train_dataloader: Iterable[Any],
    eval_dataloader: Iterable[Any] | None,
    optimizer: Optimizer | None,
    scheduler: LRScheduler | None,
    tokenizer: Any,
    num_epochs: int,
    device: str | torch.device,
    run_dir: str | Path | None,
    sinks: Sequence[Sink],
    scorer: Scorer | None,
    guard: Guard,
) -> RunFinished:
    """Train; keep the record and the student in `run_dir`, if there is one. Cards need a scorer.

    A device that this machine lacks is replaced by the CPU, with a notice, so that a snippet runs anywhere.
    """
    lesson = LessonConfig.from_dict({**config.to_dict(), "num_epochs": num_epochs, "device": str(device)})
    notices: list[tuple[str, dict[str, str]]] = []
    try:
        place = pick_device(lesson.train.device)
    except DeviceError:
        place = torch.device("cpu")
        notices.append(("notice.no_cuda", {"device": lesson.train.device}))
    keeps_record = run_dir is not None and os.environ.get("RANK", "0") == "0"  # under a launcher: the first process
    record = [RunFile(run_dir)] if run_dir is not None and keeps_record else []
    audience = Audience([*record, *sinks], scorer=scorer, guard=guard)
    try:
        verdict = distill(
            student=student_model,
            teacher=teacher_model,
            batches=train_dataloader,
            eval_batches=eval_dataloader,
            audience=audience,
            config=lesson,
            device=place,
            tokenizer=tokenizer,
            optimizer=optimizer,
            scheduler=scheduler,
            observe_samples=scorer is not None,
            notices=notices,
        )
    finally:
        audience.close()
    if run_dir is not None and keeps_record:
        save_model(student_model, tokenizer, Path(run_dir) / STUDENT)
    return verdict
