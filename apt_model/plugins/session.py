"""What both plugins do around the loop: settings, device, record, checkpoints, and keeping the student.

Knows nothing of cards or remarks: the plugins differ only in the scorer and the sinks they pass in.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from apt_model.config import LessonConfig
from apt_model.distill.checkpoints.manager import Checkpoints, Stateful
from apt_model.distill.inputs import Data, Keeping, KeyedNotice, Models, Watching
from apt_model.distill.loop import distill
from apt_model.errors import ConfigError, DeviceError, StorageError
from apt_model.events.records import Event, RunFinished
from apt_model.events.runfile import STUDENT, SUMMARY, RunFile, check_run_directory
from apt_model.events.sinks import Audience, Guard, Sink
from apt_model.i18n import Phrases
from apt_model.models.devices import pick_device
from apt_model.models.pretrained import get_model_size, save_model
from apt_model.plugins.viewer import Viewer
from apt_model.storage import one_writer
from apt_model.teaching.spikes import SpikeWatch

CALL_ARGUMENTS = ("num_epochs", "device")


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


def lesson_of(config: LessonConfig, *, num_epochs: int, device: str | torch.device) -> LessonConfig:
    """A front door's settings with those of the call.

    Raises:
        ConfigError: one of them is bad.
    """
    return LessonConfig.from_dict({**config.to_dict(), "num_epochs": num_epochs, "device": str(device)})


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where a run is kept, as the user gives it.

    Attributes:
        path: the run directory; None keeps nothing.
        resume_from: a checkpoint, or the run directory whose newest whole one is taken.
        may_differ: go on although settings or data are not what they were.
    """

    path: Path | None
    resume_from: Path | None
    may_differ: bool

    @classmethod
    def of(cls, path: str | Path | None, resume_from: str | Path | None, may_differ: bool) -> "RunFolder":
        """From the arguments of a front door.

        Raises:
            ConfigError: there is no run directory to go on in, or the checkpoint is another run's.
        """
        if resume_from is not None and path is None:
            raise ConfigError("resume_from needs a run directory to go on in", fix="pass run_dir=")
        if resume_from is not None and not Path(resume_from).resolve().is_relative_to(Path(path or ".").resolve()):
            expected = f"{path}, or a checkpoint in it"
            raise ConfigError("resume_from is of another run", got=str(resume_from), expected=expected)
        begin = Path(resume_from) if resume_from is not None else None
        return cls(path=Path(path) if path is not None else None, resume_from=begin, may_differ=may_differ)


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewers:
    """Who watches a run: sinks, the scorer that makes a lesson of it (None: numbers only), the guard of both."""

    sinks: Sequence[Sink]
    scorer: StatefulScorer | None
    guard: Guard


def run_session(
    config: LessonConfig, models: Models, data: Data, *, folder: RunFolder, viewers: Viewers
) -> RunFinished:
    """Train; keep the record, the checkpoints and the student in the run directory, if there is one.

    A device that this machine lacks is replaced by the CPU, with a notice, so that a snippet runs anywhere. Under a
    launcher the first process keeps the record, and there are no checkpoints.
    """
    if config.display.dashboard and folder.path is None:
        raise ConfigError("dashboard shows a run's record, and none is kept", fix="pass run_dir=")
    device, notices = _place(config)
    directory = folder.path if _speaks() else None
    if directory is not None:
        check_run_directory(directory, resumes=folder.resume_from is not None)
    trackers = _trackers(config.display.report_to, directory)
    with one_writer(directory) if directory is not None else nullcontext():
        checkpoints = _checkpoints(config, folder, directory)
        notices += _notices_of(checkpoints)
        record, spikes = _record(folder, directory, checkpoints), SpikeWatch()
        audience = Audience(
            [*viewers.sinks, *trackers],
            record=record,
            scorer=viewers.scorer,
            watchers=[spikes, *open_page(config, directory, viewers.guard)],
            guard=viewers.guard,
        )
        try:
            verdict = distill(
                models,
                data,
                config=config,
                device=device,
                watching=Watching(
                    audience=audience,
                    shows_cards=viewers.scorer is not None,
                    holds_exams=viewers.scorer is not None and directory is not None,
                    notices=notices,
                ),
                keeping=Keeping(checkpoints=checkpoints, parts=_parts(record, spikes, viewers.scorer)),
            )
        finally:
            audience.close()
        if directory is not None:
            _keep_student(models, directory, checkpoints, merge_adapters=config.train.merge_adapters)
    return verdict


def open_page(config: LessonConfig, directory: Path | None, guard: Guard) -> list[Viewer]:
    """The browser page, if the settings want one; one that cannot be opened is a failure of the display."""
    if directory is None or not config.display.dashboard:
        return []
    viewer = guard.run("viewer", partial(Viewer, directory, lang=config.display.lang), None)
    return [viewer] if viewer is not None else []


def _checkpoints(config: LessonConfig, folder: RunFolder, directory: Path | None) -> Checkpoints | None:
    """What writes the run's checkpoints; None where nothing is kept, or several processes train.

    Raises:
        StorageError: the run is finished, and has no checkpoint to go on from.
    """
    if directory is None or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    found = Checkpoints(directory, config.train, resume_from=folder.resume_from, may_differ=folder.may_differ)
    if folder.resume_from is not None and found.newest is None and (directory / SUMMARY).exists():
        fix = "choose another run directory"
        raise StorageError(f"{directory} is a finished run without a checkpoint to go on from", fix=fix)
    return found


def _notices_of(checkpoints: Checkpoints | None) -> list[KeyedNotice]:
    """Which checkpoints were passed over, and which one the run goes on from."""
    if checkpoints is None:
        return []
    skipped: list[KeyedNotice] = [("notice.checkpoint_skipped", {"what": what}) for what in checkpoints.skipped]
    resumed = checkpoints.last_good()
    return [*skipped, ("notice.resumed", {"from": resumed})] if resumed is not None else skipped


def _record(folder: RunFolder, directory: Path | None, checkpoints: Checkpoints | None) -> RunFile | None:
    """The run's record, empty unless the run goes on from a checkpoint."""
    if directory is None:
        return None
    record = RunFile(directory, resumes=folder.resume_from is not None)
    if checkpoints is None or checkpoints.newest is None:
        record.load_state_dict({"bytes": 0, "waiting": []})
    return record


def _parts(record: RunFile | None, spikes: SpikeWatch, scorer: StatefulScorer | None) -> dict[str, Stateful]:
    """What a checkpoint holds besides the training; nothing where no record is kept."""
    if record is None:
        return {}
    return {"record": record, "spikes": spikes, **({"lesson": scorer} if scorer is not None else {})}


def _speaks() -> bool:
    """Whether this is the process that keeps the record and tells trackers: under a launcher, the first one."""
    return os.environ.get("RANK", "0") == "0"


def _trackers(names: Sequence[str], directory: Path | None) -> list[Sink]:
    if not names or not _speaks():
        return []
    from apt_model.plugins.trackers import trackers  # takes a second to import: only for those who name a tracker

    return trackers(names, directory)


def _place(lesson: LessonConfig) -> tuple[torch.device, list[KeyedNotice]]:
    """Where to train, and what there is to say of it."""
    try:
        return pick_device(lesson.train.device), []
    except DeviceError:
        return torch.device("cpu"), [("notice.no_cuda", {"device": lesson.train.device})]


def _keep_student(models: Models, directory: Path, checkpoints: Checkpoints | None, *, merge_adapters: bool) -> None:
    """Save the student so that it is there whole, or not at all.

    Raises:
        StorageError: it could not be written; the checkpoint that holds it is named.
    """
    unfinished = directory / f".{STUDENT}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        save_model(models.student, models.tokenizer, unfinished, merge_adapters=merge_adapters)
        shutil.rmtree(directory / STUDENT, ignore_errors=True)
        unfinished.rename(directory / STUDENT)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        told = StorageError(
            f"the student cannot be saved to {directory / STUDENT}",
            got=error.got if isinstance(error, StorageError) else error.strerror,
            expected=f"room for about {round(get_model_size(models.student) * 2**20):,} bytes",
            fix="free some space, then resume the run, which is over but for that",
        )
        told.last_good = checkpoints.last_good() if checkpoints is not None else None
        raise told from error
