"""What both plugins do around the loop: settings, device, record, checkpoints, and keeping the student.

Knows nothing of cards or remarks: the plugins differ only in the scorer and the sinks they pass in.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.config import LessonConfig
from apt_model.distill.checkpoints.manager import Checkpoints, Stateful
from apt_model.distill.loop import distill
from apt_model.distill.teachers.live import TeacherSource
from apt_model.errors import ConfigError, DeviceError, StorageError
from apt_model.events.records import Event, RunFinished
from apt_model.events.runfile import STUDENT, SUMMARY, RunFile, check_run_directory
from apt_model.events.sinks import Audience, Guard, Sink
from apt_model.i18n import Phrases
from apt_model.models.devices import pick_device
from apt_model.models.pretrained import get_model_size, save_model
from apt_model.plugins.viewer import start_viewer
from apt_model.storage import one_writer
from apt_model.teaching.spikes import SpikeWatch

CALL_ARGUMENTS = ("num_epochs", "device")
Notices = list[tuple[str, Mapping[str, str | int | float]]]


class StatefulScorer(Stateful, Protocol):
    """A scorer whose statistics go on with a resumed run."""

    def __call__(self, event: Event) -> Event:
        """The event as the lesson sees it."""


def read_config(
    config: Mapping[str, Any] | LessonConfig | None,
    *,
    elsewhere: Collection[str] = CALL_ARGUMENTS,
    fix: str = "pass it to the call, e.g. num_epochs=3",
) -> LessonConfig:
    """A front door's settings.

    Args:
        config: flat keys, or a whole lesson.
        elsewhere: keys that are settings, but not to be given here.
        fix: where to give those.

    Raises:
        ConfigError: an unknown or bad setting, or one that belongs elsewhere.
    """
    if not isinstance(config, LessonConfig):
        misplaced = [key for key in elsewhere if isinstance(config, Mapping) and key in config]
        if misplaced:
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
    teacher_tokenizer: Any,
    num_epochs: int,
    device: str | torch.device,
    run_dir: str | Path | None,
    resume_from: str | Path | None,
    resume_anyway: bool,
    sinks: Sequence[Sink],
    scorer: StatefulScorer | None,
    guard: Guard,
) -> RunFinished:
    """Train; keep the record, the checkpoints and the student in `run_dir`, if there is one. Cards need a scorer.

    A device that this machine lacks is replaced by the CPU, with a notice, so that a snippet runs anywhere. Under a
    launcher the first process keeps the record, and there are no checkpoints.
    """
    lesson = LessonConfig.from_dict({**config.to_dict(), "num_epochs": num_epochs, "device": str(device)})
    if resume_from is not None and run_dir is None:
        raise ConfigError("resume_from needs a run directory to go on in", fix="pass run_dir=")
    if resume_from is not None and not Path(resume_from).resolve().is_relative_to(Path(run_dir or ".").resolve()):
        raise ConfigError(
            "resume_from is of another run", got=str(resume_from), expected=f"{run_dir}, or a checkpoint in it"
        )
    if lesson.display.dashboard and run_dir is None:
        raise ConfigError("dashboard shows a run's record, and none is kept", fix="pass run_dir=")
    place, notices = _place(lesson)
    directory = Path(run_dir) if run_dir is not None and _speaks() else None
    resumes = resume_from is not None
    if directory is not None:
        check_run_directory(directory, resumes=resumes)
    reports = _trackers(lesson.display.report_to, directory)
    with one_writer(directory) if directory is not None else nullcontext():
        checkpoints, record, spikes = None, None, SpikeWatch()
        keep_too: dict[str, Stateful] = {}
        if directory is not None and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            begin = Path(resume_from) if resume_from is not None else None
            checkpoints = Checkpoints(directory, lesson.train, resume_from=begin, may_differ=resume_anyway)
            notices += [("notice.checkpoint_skipped", {"what": what}) for what in checkpoints.skipped]
            if resumes and checkpoints.newest is None and (directory / SUMMARY).exists():
                fix = "choose another run directory"
                raise StorageError(f"{directory} is a finished run without a checkpoint to go on from", fix=fix)
            if checkpoints.newest is not None:
                notices.append(("notice.resumed", {"from": checkpoints.last_good() or ""}))
        if directory is not None:
            record = RunFile(directory, resumes=resumes)
            if checkpoints is None or checkpoints.newest is None:
                record.load_state_dict({"bytes": 0, "waiting": []})
            keep_too = {"record": record, "spikes": spikes, **({"lesson": scorer} if scorer is not None else {})}
        audience = Audience([*sinks, *reports], record=record, scorer=scorer, watchers=[spikes], guard=guard)
        if directory is not None and lesson.display.dashboard:
            guard.run("viewer", partial(start_viewer, directory, lang=lesson.display.lang), None)
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
                teacher_tokenizer=teacher_tokenizer,
                optimizer=optimizer,
                scheduler=scheduler,
                checkpoints=checkpoints,
                keep_too=keep_too,
                observe_samples=scorer is not None,
                holds_exams=scorer is not None and directory is not None,
                notices=notices,
            )
        finally:
            audience.close()
        if directory is not None:
            try:
                _keep_student(student_model, tokenizer, directory, merge_adapters=lesson.train.merge_adapters)
            except StorageError as error:
                error.last_good = checkpoints.last_good() if checkpoints is not None else None
                raise
    return verdict


def _speaks() -> bool:
    """Whether this is the process that keeps the record and tells trackers: under a launcher, the first one."""
    return os.environ.get("RANK", "0") == "0"


def _trackers(names: Sequence[str], directory: Path | None) -> list[Sink]:
    if not names or not _speaks():
        return []
    from apt_model.plugins.trackers import trackers  # its package holds a front door that imports this module

    return trackers(names, directory)


def _place(lesson: LessonConfig) -> tuple[torch.device, Notices]:
    """Where to train, and what there is to say of it."""
    try:
        return pick_device(lesson.train.device), []
    except DeviceError:
        return torch.device("cpu"), [("notice.no_cuda", {"device": lesson.train.device})]


def _keep_student(student: nn.Module, tokenizer: Any, directory: Path, *, merge_adapters: bool) -> None:
    """Save the student so that it is there whole, or not at all.

    Raises:
        StorageError: it could not be written.
    """
    unfinished = directory / f".{STUDENT}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        save_model(student, tokenizer, unfinished, merge_adapters=merge_adapters)
        shutil.rmtree(directory / STUDENT, ignore_errors=True)
        unfinished.rename(directory / STUDENT)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise StorageError(
            f"the student cannot be saved to {directory / STUDENT}",
            got=error.got if isinstance(error, StorageError) else error.strerror,
            expected=f"room for about {round(get_model_size(student) * 2**20):,} bytes",
            fix="free some space, then resume the run, which is over but for that",
        ) from error
