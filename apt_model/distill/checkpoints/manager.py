"""Save and restore checkpoints of a run, so that it resumes exactly where it was.

Knows what makes up a run (weights, optimizer, schedule, generators, counters); knows nothing of file formats, nor of
what a training step does.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from apt_model.config.sections import TrainConfig
from apt_model.data.notices import KeyedNotice
from apt_model.data.rng import Tensors
from apt_model.distill.checkpoints.branching import branch_of, keep_beginning, refuse_no_future, told_of_branch
from apt_model.distill.checkpoints.comparison import (
    BEGINNING,
    compared,
    differences,
    excused_by,
    holds_weights,
    refuse_other_batches,
    refuse_other_ranks,
    refuse_past_the_end,
    told_of_workers,
)
from apt_model.distill.checkpoints.finding import CHECKPOINTS, STATE, find_checkpoint
from apt_model.distill.checkpoints.generators import RestoredGenerators
from apt_model.distill.checkpoints.optimizer_state import load_optimizer_state, optimizer_state, refuse_missing
from apt_model.distill.checkpoints.progress import Progress
from apt_model.distill.checkpoints.rank_state import RankState, WholeState, side_by_side
from apt_model.distill.checkpoints.run_state import RunState
from apt_model.errors import ConfigError, StorageError
from apt_model.events.records import Branch
from apt_model.models.devices import surroundings
from apt_model.models.weights import load_weights, save_weights, weights_of
from apt_model.ranks import group
from apt_model.ranks.collective import gather_values, rank
from apt_model.storage import (
    Writer,
    forget_after,
    json_writer,
    prune,
    read_json,
    snapshot_name,
    step_of,
    write_snapshot,
)

STUDENT, BESIDE, OPTIMIZER = "student.safetensors", "beside.safetensors", "optimizer.safetensors"
INNER = "inner.safetensors"
GENERATORS = "generators.safetensors"
BESIDES = 65_536  # bytes of a checkpoint that are no weights: generators, counters, what blocks of a disk leave empty
# Students in memory, and the run that left them so: one that is a step past its checkpoint goes on as that run too.
_TRAINED_HERE: WeakKeyDictionary[nn.Module, Path] = WeakKeyDictionary()
OTHER = "resume from another checkpoint"  # a fix


class Checkpoints:
    """Saves, prunes and restores the checkpoints of a run.

    Args:
        run_dir: the checkpoints go to `checkpoints` below it.
        config: how often to save, and how many to keep.
        resume_from: a checkpoint, or a run directory whose newest intact one is taken; a run interrupted before its
            first checkpoint starts afresh. None: no resuming.
        may_differ: resume even if settings, sizes or data have changed.
        branches: `resume_from` is another run's: the run is a branch of that one, and may have other settings.

    Attributes:
        branches: as given.
        branch: where a branch comes from, once `check` has compared it; None of other runs.
    """

    def __init__(
        self,
        run_dir: Path,
        config: TrainConfig,
        *,
        resume_from: Path | None = None,
        may_differ: bool = False,
        branches: bool = False,
    ) -> None:
        self.folder = run_dir / CHECKPOINTS
        self._config, self._may_differ, self.branches = config, may_differ, branches
        self.branch: Branch | None = None
        self._clock = time.monotonic()
        self._best: tuple[float, int] | None = None  # score and step
        self._saved_step = 0
        self.newest: Path | None = None
        self.unwritten: nn.Module | None = None  # the student, whole, of a checkpoint that could not be written
        self.skipped: list[str] = []
        if resume_from is not None:
            self.newest, self.skipped = find_checkpoint(resume_from)

    def last_good(self) -> str | None:
        """For error messages: step and path of the newest intact checkpoint, or None."""
        return f"step {step_of(self.newest)} ({self.newest})" if self.newest else None

    def is_due(self, step: int) -> bool:
        """Whether `save_steps` or `save_minutes` call for a checkpoint after this step."""
        every, minutes = self._config.save_steps, self._config.save_minutes
        by_steps = every is not None and step % every == 0 and step != self._saved_step
        return by_steps or (minutes is not None and time.monotonic() - self._clock >= 60 * minutes)

    def save(self, run: RunState, *, score: float | None = None) -> None:
        """Write a checkpoint, then remove those over `save_total_limit`.

        Args:
            run: what to save.
            score: validation loss or the like, lower is better; the checkpoint with the best one is always kept.

        Raises:
            StorageError: it could not be written; earlier checkpoints are intact.
            ConfigError: the state of an optimizer or schedule is no JSON value.
        """
        group.ranks().at("save")
        progress = run.progress
        self._note(score, progress.step)
        ranks = gather_values(RankState.of(run))  # each gives its own, and rank 0 writes
        whole = WholeState.of(run)
        self.unwritten = whole.student
        with group.ranks().agreed("save a checkpoint"):
            if rank() == 0:
                self._write(run, ranks, whole)
        self.newest, self.unwritten = self.folder / snapshot_name(progress.step), None
        self._clock, self._saved_step = time.monotonic(), progress.step

    def _write(self, run: RunState, ranks: Sequence[RankState], whole: WholeState) -> None:
        write_state, generators, inner = self._state_of(run, ranks, whole.settings)
        tensors, beside = whole.optimizer, whole.beside
        weights = [*weights_of(whole.student).values(), *beside.values()]
        about = sum(t.numel() * t.element_size() for t in [*weights, *tensors.values()])
        write_snapshot(
            self.folder,
            run.progress.step,
            {
                STUDENT: partial(save_weights, whole.student),
                **({BESIDE: lambda path: save_file(beside, path)} if beside else {}),
                OPTIMIZER: lambda path: save_file(tensors, path),
                GENERATORS: lambda path: save_file(generators, path),
                INNER: lambda path: save_file(inner, path),
                STATE: write_state,
            },
            about_bytes=about + BESIDES,
        )
        self._prune()

    def rate(self, score: float | None, step: int) -> None:
        """Give the checkpoint of a step its score, where `save` did not know it yet."""
        self._note(score, step)
        if rank() == 0:
            self._prune()

    def _note(self, score: float | None, step: int) -> None:
        if score is not None and isfinite(score) and (self._best is None or score < self._best[0]):
            self._best = (score, step)

    def _prune(self) -> None:
        prune(self.folder, keep=self._config.save_total_limit, spare=self._best[1] if self._best else None)

    def _state_of(
        self, run: RunState, ranks: Sequence[RankState], settings: Mapping[str, Any]
    ) -> tuple[Writer, Tensors, Tensors]:
        """A writer of the JSON state, and tensors of generators and of the models' inner state.

        `settings`: what of the optimizer's state is no tensor.
        """
        own, generators, inner = side_by_side(ranks)
        state = {
            "progress": run.progress.state_dict(),
            "identity": dict(run.identity),
            "others": {name: one.state_dict() for name, one in run.others.items()},
            "optimizer": settings,
            "ranks": own,
            "best": self._best,
            "surroundings": surroundings(run.device),
        }
        try:
            return json_writer(state), generators, inner
        except (TypeError, ValueError, RecursionError) as error:
            expected = "JSON values in every state_dict; in the optimizer's, tensors too"
            fix = "use another optimizer or scheduler, or train without run_dir"
            got = str(error)
            raise ConfigError("checkpoints cannot hold the run's state", got=got, expected=expected, fix=fix) from error

    def check(self, run: RunState) -> list[KeyedNotice]:
        """Check, before anything is changed, that a run can be saved, and restored if it is to be resumed.

        Returns:
            What to tell of a resumed run: differences that `may_differ` allows; another machine.

        Raises:
            ConfigError: settings, sizes, models or data differ from the checkpoint's (lists them); the checkpoint is
                past the run's end; or a part of the run is neither a tensor nor a JSON value.
            StorageError: the checkpoint's identity cannot be read.
        """
        others = gather_values((self.newest.name if self.newest else None, dict(run.identity)))
        with group.ranks().agreed("compare the run"):
            refuse_other_ranks([name for name, _ in others], [one for _, one in others], is_divided=run.is_divided)
            told = self._compare(run) if self.newest is not None and rank() == 0 else []
        _TRAINED_HERE[run.student] = self.folder.resolve()
        self._state_of(run, [RankState.of(run)], optimizer_state(run.optimizer)[1])
        strange = [name for name, value in run.student.state_dict().items() if not isinstance(value, Tensor)]
        if strange:
            got, fix = f"{', '.join(strange[:3])} in it", "change the student, or train without run_dir"
            what = "checkpoints cannot hold the student's state_dict"
            raise ConfigError(what, got=got, expected="tensors only", fix=fix)
        return told

    def _compare(self, run: RunState) -> list[KeyedNotice]:
        """Compare a run with the newest checkpoint; what to tell, and errors, as `check`."""
        assert self.newest is not None  # noqa: S101 - asked for only where there is one
        try:
            state = read_json(self.newest / STATE)
            then, there, done = dict(state["identity"]), dict(state["surroundings"]), Progress()
            done.load_state_dict(state["progress"])
        except (OSError, LookupError, TypeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"[:300]
            raise StorageError(f"checkpoint {self.newest} cannot be read", got=got, fix=OTHER) from error
        here = surroundings(run.device)
        excused = excused_by(there, here)
        if self.branches:
            return self._begin_branch(run, state, done, excused_by(there, here))
        knows = _TRAINED_HERE.get(run.student) == self.folder.resolve()
        if knows or BEGINNING in excused or holds_weights(run.student, self.newest / STUDENT):
            run.identity = {**run.identity, BEGINNING: then.get(BEGINNING)}
        told = compared(then, run.identity, may_differ=self._may_differ, excused=excused)
        if then.get("processes") != run.identity.get("processes"):
            told.append(("notice.other_world_size", {}))
        if elsewhere := "; ".join(differences(there, here)):
            told.append(("notice.resumed_elsewhere", {"what": elsewhere}))
        refuse_past_the_end(self._config, done)
        return told + told_of_workers(run.data.loader, done)

    def _begin_branch(
        self, run: RunState, state: Mapping[str, Any], done: Progress, excused: Sequence[str]
    ) -> list[KeyedNotice]:
        """Compare a branch with its parent's checkpoint; what to tell; errors as `branch_of`, `refuse_no_future`."""
        assert self.newest is not None  # noqa: S101 - asked for only where there is one
        has_beside = run.beside is not None or (self.newest / BESIDE).exists()
        run.identity = {**run.identity, BEGINNING: state["identity"].get(BEGINNING)}  # a checkpoint replaces them
        self.branch = branch_of(self.newest, state, run.identity, excused=excused, has_beside=has_beside)
        refuse_no_future(done, self._config)
        return [told_of_branch(self.branch), *told_of_workers(run.data.loader, done)]

    def restore(self, run: RunState) -> RestoredGenerators:
        """Restore a run from the checkpoint, but for the random generators: they are returned, to be set later.

        Raises:
            StorageError: a part is missing from the checkpoint, or does not fit the run.
        """
        assert self.newest is not None  # noqa: S101 - asked for only where there is one
        with group.ranks().agreed("restore the checkpoint"):
            generators = self._restore(run, self.newest)
        self._saved_step = run.progress.step
        if rank() == 0 and not self.branches:
            forget_after(self.folder, self.newest)
        return generators

    def begin_branch(self, run: RunState, tell: Callable[..., Any]) -> None:
        """Of a branch that was restored: tell of its rate, then copy its parent's checkpoint as its own first one.

        Of other runs: nothing.

        Raises:
            StorageError: it could not be written.
        """
        if not self.branches or self.newest is None:
            return
        with group.ranks().agreed("keep where the branch begins"):
            if rank() == 0:
                if self._best is not None and self._best[1] != run.progress.step:
                    self._best = None  # the parent keeps that checkpoint, and measured it by other settings
                keep_beginning(self.folder, self.newest, run, best=self._best, tell=tell)
        self.newest = self.folder / self.newest.name

    def _restore(self, run: RunState, path: Path) -> RestoredGenerators:
        try:
            state = read_json(path / STATE)
            run.progress.load_state_dict(state["progress"])
            load_weights(run.student, path / STUDENT)
            if run.beside is not None:
                load_weights(run.beside, path / BESIDE)
            load_optimizer_state(run.optimizer, load_file(path / OPTIMIZER), state["optimizer"])
            for name, one in run.others.items():
                own = one.state_dict()
                refuse_missing(name, own, state["others"][name])
                keeps = {"run_id": own["run_id"]} if self.branches and name == "report" else {}
                one.load_state_dict({**state["others"][name], **keeps})
            self._best = state["best"] and (float(state["best"][0]), int(state["best"][1]))
            at = RankState.read(rank(), state["ranks"], load_file(path / GENERATORS), load_file(path / INNER))
            return at.restore(run, path, state["identity"])
        except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
            got = f"{type(error).__name__}: {error}"[:300]
            raise StorageError(f"checkpoint {path} cannot be restored", got=got, fix=OTHER) from error

    def refuse_other_data(self, then: str, now: str, batches: int) -> None:
        """Refuse to resume in an epoch whose first batches have another hash; errors as `refuse_other_batches`."""
        if not self._may_differ:
            refuse_other_batches(then, now, batches)
