"""A plugin's run around the training loop: settings, device, run directory, record, checkpoints, the saved student.

Knows nothing of cards or remarks: the plugins differ only in the scorer and the sinks they pass in.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from apt_model.config import LessonConfig
from apt_model.config.sections import DisplayConfig
from apt_model.data.notices import KeyedNotice
from apt_model.distill.checkpoints.finding import checkpoint_at
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.distill.checkpoints.run_state import Stateful
from apt_model.distill.inputs import Data, Keeping, Models, Watching
from apt_model.distill.loop import distill
from apt_model.errors import ConfigError, DeviceError, StorageError
from apt_model.events.event import Event
from apt_model.events.inherited import InheritedRecord, refuse_torn_off
from apt_model.events.questions import open_questions, questions_in
from apt_model.events.records import RunFinished
from apt_model.events.runfile import STUDENT, SUMMARY, RunFile, check_run_directory
from apt_model.events.sinks import Audience, Guard, Sink
from apt_model.models.devices import pick_device
from apt_model.models.forward import model_card
from apt_model.models.readme import Training
from apt_model.models.sharding import gathered
from apt_model.plugins.kept_student import RunHome, save_student, with_student
from apt_model.plugins.viewer import open_page
from apt_model.ranks.group import ranks
from apt_model.storage import one_writer
from apt_model.teaching.spikes import SpikeWatch


class StatefulScorer(Stateful, Protocol):
    """A scorer whose statistics are part of a checkpoint."""

    def __call__(self, event: Event) -> Event:
        """The event with the scorer's judgement."""


def refuse_unrecorded_dashboard(display: DisplayConfig, run_dir: str | Path | None) -> None:
    """Refuse the browser display, and questions from it, without a run directory: they are recorded there.

    Raises:
        ConfigError: `dashboard` or `ask` is set, and `run_dir` is None.
    """
    if display.dashboard and run_dir is None:
        raise ConfigError("dashboard needs a run directory, whose record it shows", fix="pass run_dir=")
    if display.ask and run_dir is None:
        raise ConfigError("ask needs a run directory, in which the questions are kept", fix="pass run_dir=")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Run directory and resume arguments, as the user gives them.

    Attributes:
        path: the run directory; None keeps nothing.
        resume_from: a checkpoint, or the run directory whose newest intact one is taken; None: a new run.
        may_differ: resume even if settings, models or data have changed.
        branch_from: the checkpoint of another run that this one goes on from as a branch; None: it is no branch.
    """

    path: Path | None
    resume_from: Path | None
    may_differ: bool
    branch_from: Path | None = None

    @property
    def parent(self) -> Path | None:
        """The run directory that a branch leaves."""
        return None if self.branch_from is None else self.branch_from.parent.parent

    @classmethod
    def of(
        cls,
        path: str | Path | None,
        resume_from: str | Path | None,
        may_differ: bool,
        *,
        branch_from: str | Path | None = None,
        branch_at: int | None = None,
    ) -> "RunFolder":
        """From the arguments of a plugin's call.

        Raises:
            ConfigError: `resume_from` without a run directory, or outside it; `branch_from` without a directory of its
                own, or as `checkpoint_at`.
            StorageError: as `checkpoint_at`.
        """
        if branch_from is not None or branch_at is not None:
            return cls._of_branch(path, resume_from, may_differ, branch_from, branch_at)
        if resume_from is not None and path is None:
            raise ConfigError("resume_from needs a run directory", fix="pass run_dir=, the run to resume")
        if resume_from is not None and not Path(resume_from).resolve().is_relative_to(Path(path or ".").resolve()):
            expected = f"{path}, or a checkpoint in it"
            raise ConfigError("resume_from is not in run_dir", got=str(resume_from), expected=expected)
        begin = Path(resume_from) if resume_from is not None else None
        return cls(path=Path(path) if path is not None else None, resume_from=begin, may_differ=may_differ)

    @classmethod
    def _of_branch(
        cls,
        path: str | Path | None,
        resume_from: str | Path | None,
        may_differ: bool,
        parent: str | Path | None,
        step: int | None,
    ) -> "RunFolder":
        if parent is None:
            raise ConfigError("branch_at needs the run to branch", fix="pass branch_from=, its run directory")
        if path is None or Path(path).resolve() == Path(parent).resolve():
            raise ConfigError("a branch needs a run directory of its own", fix="pass another run_dir=")
        if resume_from is not None or may_differ:
            fix = "leave out resume_from and resume_anyway; a branch that was begun is resumed without branch_from"
            raise ConfigError("a run either resumes or branches", fix=fix)
        return cls(path=Path(path), resume_from=None, may_differ=False, branch_from=checkpoint_at(Path(parent), step))


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewers:
    """The displays of a run: its sinks, the scorer that adds the lesson (None: numbers only), the guard of both.

    `notices` are told at its beginning.
    """

    sinks: Sequence[Sink]
    scorer: StatefulScorer | None
    guard: Guard
    notices: Sequence[KeyedNotice] = ()


def run_session(
    config: LessonConfig, models: Models, data: Data, *, folder: RunFolder, viewers: Viewers
) -> RunFinished:
    """Train; write the record, the checkpoints and the student into the run directory, if there is one.

    A device that this machine lacks is replaced by the CPU, with a notice, so that a snippet runs anywhere. With
    several processes the first one writes the record, and all of them give their part of a checkpoint.
    """
    with ranks().session(patience=config.train.rank_patience, directory=folder.path):
        return _train(config, models, data, folder=folder, viewers=viewers)


def _train(config: LessonConfig, models: Models, data: Data, *, folder: RunFolder, viewers: Viewers) -> RunFinished:
    refuse_unrecorded_dashboard(config.display, folder.path)
    device, notices = _place(config)
    directory = folder.path if ranks().is_first else None
    with ranks().agreed("open the run directory"):
        if directory is not None:
            check_run_directory(directory, resumes=folder.resume_from is not None)
    trackers = _trackers(config.display.report_to, directory)
    home = RunHome(directory) if directory is not None else None
    with one_writer(directory) if directory is not None else nullcontext():
        checkpoints = _checkpoints(config, folder)
        notices += [*viewers.notices, *_notices_of(checkpoints)]
        record, spikes = _record(folder, directory, checkpoints), SpikeWatch()
        if record is not None and record.kept is not None:
            notices.append(("notice.record_kept", {"path": str(record.kept)}))
        audience = Audience(
            [*viewers.sinks, *trackers],
            record=record,
            scorer=viewers.scorer,
            watchers=[spikes, *open_page(config, directory, viewers.guard, beside=folder.parent)],
            guard=viewers.guard,
        )
        try:
            with _kept(models, config, home, checkpoints, audience):
                verdict = distill(
                    models,
                    data,
                    config=config,
                    device=device,
                    watching=Watching(
                        audience=audience,
                        shows_cards=viewers.scorer is not None,
                        takes_readings=viewers.scorer is not None,
                        holds_exams=viewers.scorer is not None and directory is not None,
                        asked=_questions(config, directory, viewers.guard),
                        notices=notices,
                    ),
                    keeping=Keeping(checkpoints=checkpoints, parts=_parts(record, folder, spikes, viewers.scorer)),
                )
                audience.close()
            ranks().at("save")
            whole = with_student(models, gathered(models.student))  # all give their shards, and the first one saves
            with ranks().agreed("save the student"), _kept(whole, config, home, checkpoints, audience):
                if directory is not None and record is not None:
                    record.check()  # else it may be another run's student that is replaced
                    save_student(whole, directory / STUDENT, config, _training(config, models, data, verdict))
                    record.check()
        finally:
            audience.close()
    return verdict


@contextmanager
def _kept(
    models: Models, config: LessonConfig, home: RunHome | None, checkpoints: Checkpoints | None, audience: Audience
) -> Iterator[None]:
    """Context manager: where a disk fails, the student is kept elsewhere, and the error says where."""
    try:
        yield
    except StorageError as error:
        if home is None:
            raise
        told = home.with_student(error, models, config, checkpoints=checkpoints, step=audience.step)
        if told is error:  # an error that is its own cause would be followed without end
            raise
        raise told from error


def _questions(config: LessonConfig, directory: Path | None, guard: Guard) -> Callable[[], Sequence[str]] | None:
    """Reads what is asked from the page, which may ask from now on; None if the settings take no questions."""
    if directory is None or not config.display.ask:
        return None
    guard.run("questions", partial(open_questions, directory), None)
    return partial(questions_in, directory)


def _checkpoints(config: LessonConfig, folder: RunFolder) -> Checkpoints | None:
    """What writes the run's checkpoints; None without a run directory.

    Raises:
        StorageError: the run is finished, and has no checkpoint to resume from.
    """
    directory = folder.path
    if directory is None:
        return None
    found = Checkpoints(
        directory,
        config.train,
        resume_from=folder.branch_from or folder.resume_from,
        may_differ=folder.may_differ,
        branches=folder.branch_from is not None,
    )
    if folder.resume_from is not None and found.newest is None:
        if (directory / SUMMARY).exists():
            fix = "start a new run in another directory"
            raise StorageError(f"{directory} is a finished run without a checkpoint to resume from", fix=fix)
        refuse_torn_off(directory)
    return found


def _notices_of(checkpoints: Checkpoints | None) -> list[KeyedNotice]:
    """Notices of the checkpoints that were skipped as damaged, and of the one that the run resumes from."""
    if checkpoints is None:
        return []
    skipped: list[KeyedNotice] = [("notice.checkpoint_skipped", {"what": what}) for what in checkpoints.skipped]
    resumed = checkpoints.last_good()
    if resumed is None or checkpoints.branches:  # a branch says where it comes from once it is compared
        return skipped
    return [*skipped, ("notice.resumed", {"from": resumed})]


def _record(folder: RunFolder, directory: Path | None, checkpoints: Checkpoints | None) -> RunFile | None:
    """The run's record; of a run that resumes without a checkpoint a new one, beside what is there."""
    if directory is None:
        return None
    begins_anew = checkpoints is None or checkpoints.newest is None
    return RunFile(directory, resumes=folder.resume_from is not None, begins_anew=begins_anew)


def _parts(
    record: RunFile | None, folder: RunFolder, spikes: SpikeWatch, scorer: StatefulScorer | None
) -> dict[str, Stateful]:
    """The states in a checkpoint besides the training's: record, spike watch, scorer; none without a record."""
    if record is None:
        return {}
    own = record if folder.parent is None else InheritedRecord(record, folder.parent)
    return {"record": own, "spikes": spikes, **({"lesson": scorer} if scorer is not None else {})}


def _trackers(names: Sequence[str], directory: Path | None) -> list[Sink]:
    if not names or not ranks().is_first:
        return []
    from apt_model.plugins.trackers import trackers  # takes a second to import: only for those who name a tracker

    return trackers(names, directory)


def _place(lesson: LessonConfig) -> tuple[torch.device, list[KeyedNotice]]:
    """The device to train on (the CPU if this machine lacks the one asked for), and the notice of that."""
    try:
        return pick_device(lesson.train.device), []
    except DeviceError:
        return torch.device("cpu"), [("notice.no_cuda", {"device": lesson.train.device})]


def _training(config: LessonConfig, models: Models, data: Data, verdict: RunFinished) -> Training:
    """What the student's model card tells of its training."""
    teacher = models.teacher
    return Training(
        teacher=model_card(teacher) if isinstance(teacher, nn.Module) else teacher.card,
        teacher_name=str(getattr(teacher, "name_or_path", "") or ""),
        data=data.names,
        batch_size=getattr(data.train, "batch_size", None),
        optimizer=None if models.optimizer is None else type(models.optimizer).__name__,
        config=config,
        finished=verdict,
    )
