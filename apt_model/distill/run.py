"""The training loop: epochs of optimizer steps, with cards, exams, validation, checkpoints and a verdict.

Knows in which order things happen; knows nothing of how a step is computed, or of what an event means.
"""

import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace

from accelerate import Accelerator

from apt_model.config import LessonConfig
from apt_model.data.data_state import DataState
from apt_model.data.notices import KeyedNotice
from apt_model.data.rng import start_workers
from apt_model.distill.assembly import Parts
from apt_model.distill.batches import AccumulationWindows, Window
from apt_model.distill.checkpoints.generators import RestoredGenerators
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.distill.checkpoints.progress import Progress
from apt_model.distill.checkpoints.run_state import RunState, Stateful
from apt_model.distill.checks import refuse_empty
from apt_model.distill.inputs import Keeping, Models
from apt_model.distill.interrupt import Stop
from apt_model.distill.lesson_state import LessonState
from apt_model.distill.optimizer_step import StepTaken
from apt_model.distill.together import Together, Vote, WindowCount
from apt_model.errors import Interrupted, StorageError
from apt_model.events.records import EpochFinished, EpochStarted, RunFinished, RunStarted, StepDone
from apt_model.ranks.group import ranks


class TrainingRun:
    """One training run: its parts, and its progress.

    Args:
        models: as they were assembled, the student itself without its wrapper.
        parts: what `assemble` made of them.
        config: all settings.
        accelerator: knows device, precision and processes.
        notices: emitted once, right after the run has started.
        keeping: checkpoints, to write and to resume from.
        stop: whether a signal has requested a stop.
    """

    def __init__(
        self,
        models: Models,
        parts: Parts,
        *,
        config: LessonConfig,
        accelerator: Accelerator,
        notices: Iterable[KeyedNotice],
        keeping: Keeping,
        stop: Stop,
    ) -> None:
        self._config, self._accelerator, self._stop = config, accelerator, stop
        self._keeping, self._checkpoints, self._notices, self._parts = keeping, keeping.checkpoints, notices, parts
        self._report, self._student = parts.report, parts.student
        self._epochs, self._progress = parts.epochs, Progress()
        self._lesson = LessonState(validator=parts.validator, exam=parts.exam, readings=parts.readings)
        self._state = self._state_of(models, parts)
        self._together = Together(accelerator.device)
        self._windows = AccumulationWindows(
            parts.share,
            collate=models.collate(max_length=config.train.max_length, tell=parts.report.notice),
            check=parts.grader.check,
            accumulation=config.train.gradient_accumulation_steps,
            keeper=self._checkpoints,
            state=self._state,
            say=parts.report.say,
        )

    def _state_of(self, models: Models, parts: Parts) -> RunState:
        """The state of the run that checkpoints save and restore."""
        scaler = self._accelerator.scaler
        own = {"schedule": parts.schedule, "scaler": scaler, "report": self._report, "run": self._lesson}
        named = {**own, **self._keeping.parts}
        others: dict[str, Stateful] = {name: one for name, one in named.items() if one is not None}
        return RunState(
            student=models.student,
            teacher=parts.teacher,
            beside=parts.projections,
            optimizer=parts.optimizer,
            progress=self._progress,
            others=others,
            identity={**parts.identity, "processes": self._accelerator.num_processes, "keeps": sorted(others)},
            device=self._accelerator.device,
            data=DataState(parts.share.loader),
            is_divided=parts.share.is_divided,
        )

    def all_epochs(self) -> RunFinished:
        """Train all epochs, emitting events; returns the verdict."""
        projections = self._parts.projections
        with nullcontext() if projections is None else projections.trained_by(self._parts.optimizer):
            restored = self._begin()
            self._parts.stages.begin(self._progress.step)
            started = time.perf_counter() - self._progress.seconds
            # `finished` is also true before the first epoch; false: an epoch of a resumed run goes on.
            while not self._progress.finished or (
                not self._is_done() and (self._config.train.max_steps or self._progress.epoch < self._epochs)
            ):
                self._one_epoch(started, restored)
            return self._end(started)

    def _begin(self) -> RestoredGenerators | None:
        """Emit the start and the notices; restore a checkpoint if the run resumes: its generators are returned."""
        parts, told = self._parts, self._checkpoints.check(self._state) if self._checkpoints is not None else []
        teacher, student = parts.cards_of_models
        self._report.tell(
            RunStarted,
            teacher=teacher,
            student=student,
            config=self._config.to_dict(),
            num_epochs=self._epochs,
            total_steps=parts.total_steps,
            device=str(self._accelerator.device),
            vocabulary=parts.vocabulary,
            branch=self._keeping.branch(),
        )
        for key, values in (*self._notices, *told, *parts.notices()):
            self._report.say(key, **values)
        self._report.begin()
        if parts.has_no_schedule:
            self._report.say("notice.no_length", schedule=self._config.train.lr_scheduler_type)
        if (keeper := self._checkpoints) is not None and keeper.newest is not None:
            return self._resume(keeper)  # cuts the record back to the checkpoint, so a failed write before is no loss
        self._end_if_lost()
        return None

    def _end(self, started: float) -> RunFinished:
        """Emit the end of the run; returns it with the verdict."""
        progress = self._progress
        with self._parts.lockstep():
            self._parts.readings.at_end(self._student, epoch=progress.epoch)
        self._parts.stages.at_end(progress.step)
        first_loss, last_loss = progress.losses.ends(0.1) or (None, None)
        verdict = self._report.tell(
            RunFinished,
            epochs=progress.epoch,
            tokens=progress.tokens,
            skipped_batches=progress.skipped,
            seconds=time.perf_counter() - started,
            first_loss=first_loss,
            last_loss=last_loss,
            validation=self._lesson.validation,
        )
        self._end_if_lost()
        return verdict

    def _resume(self, keeper: Checkpoints) -> RestoredGenerators:
        """Restore a checkpoint; the record is cut back to its length there, so nothing is in it twice."""
        restored = keeper.restore(self._state)
        self._report.step = self._progress.step
        keeper.begin_branch(self._state, self._report.tell)
        if restored.ranks != self._accelerator.num_processes:  # with `may_differ`: the order of data goes on
            self._progress.own_batches = self._parts.share.own(self._progress.batches)
            self._progress.exhausted = False
        if self._progress.has_left_an_epoch:
            start_workers(self._parts.share.batches)
        if self._progress.finished or self._is_done():  # no batch of its epoch will be drawn, which would set them
            self._state.at_epoch_start = restored.set_to_epoch_start(self._state.device, self._state.data)
            restored.set_to_save(self._state.device, self._state.data)
        return restored

    def _one_epoch(self, run_started: float, restored: RestoredGenerators | None) -> None:
        progress = self._progress
        if progress.finished:
            progress.begin_epoch()
            self._epochs = max(self._epochs, progress.epoch)  # with max_steps and data of no length, not known before
            self._report.tell(EpochStarted, epoch=progress.epoch, num_epochs=self._epochs)
        started = time.perf_counter() - progress.epoch_seconds
        self._all_steps(run_started, started, restored)
        refuse_empty(progress.epoch, progress.batches, progress.epoch_steps)
        is_cut = self._is_done()
        if is_cut:  # saved before anything is told of the epoch's end: resumed with more max_steps, it continues here
            self._keep(is_due=True)
        ranks().at("validation")
        validator = self._parts.validator
        measured = validator.measure(self._student, self._report) if validator else None
        with self._parts.lockstep():
            self._parts.exam.after_epoch(self._student, epoch=progress.epoch)
            self._parts.readings.after_epoch(self._student, epoch=progress.epoch)
        mean_loss = progress.epoch_loss_sum / progress.epoch_tokens if progress.epoch_tokens else None
        scored = self._report.tell(
            EpochFinished,
            epoch=progress.epoch,
            num_epochs=self._epochs,
            mean_loss=mean_loss,
            tokens=progress.epoch_tokens,
            skipped_batches=progress.epoch_skipped,
            seconds=time.perf_counter() - started,
            validation=measured,
        )
        self._lesson.validation = scored.validation and replace(scored.validation, pairs=())
        progress.finished = True
        score = measured.loss if measured else mean_loss
        if not is_cut:
            self._keep(is_due=True, score=score)
        elif self._checkpoints is not None:
            self._checkpoints.rate(score, progress.step)
            self._end_if_stopped(self._vote(is_due=False).signal)

    def _all_steps(self, run_started: float, epoch_started: float, restored: RestoredGenerators | None) -> None:
        """The optimizer steps of an epoch that are still to be taken, with a checkpoint after a step if one is due."""
        progress = self._progress
        clock = time.perf_counter()
        windows = self._windows.of_epoch(restored)
        while not self._is_done():
            ranks().at("data", progress.step + 1)
            drawn = next(windows, [])
            batches = [batch for _, batch in drawn]
            with self._parts.lockstep():
                if drawn:
                    self._parts.causality.check(batches, step=progress.step + 1)
                self._parts.packing.try_out(batches)
            window, count = self._to_learn(drawn)
            if not count.batches:
                break
            if count.tokens:
                clock += self._before_first_step(drawn, window)
                self._one_step(window, count, clock)
            progress.batches += count.batches
            progress.own_batches += len(drawn)
            clock = time.perf_counter()
            progress.seconds, progress.epoch_seconds = clock - run_started, clock - epoch_started
            if not self._is_done():
                self._keep(is_due=self._checkpoints is not None and self._checkpoints.is_due(progress.step))

    def _to_learn(self, window: Window) -> tuple[Window, WindowCount]:
        """The batches that a step learns from on this rank, and the count of those of all ranks."""
        if self._parts.on_policy is not None:
            with self._parts.lockstep():
                window = self._parts.on_policy.window(self._student, window, step=self._progress.step + 1)
        count = self._together.count(window)
        self._progress.count_skipped(count.without_labels)
        if count.first_without_labels is not None:
            self._report.say("notice.no_labels", batch=count.first_without_labels, epoch=self._progress.epoch)
        return self._together.filled(window, count, self._windows.before), count

    def _before_first_step(self, drawn: Window, window: Window) -> float:
        """The first reading and exam, if they wait, on prompts of the validation data if any; the seconds they took."""
        asked, validator = time.perf_counter(), self._parts.validator
        looked_at, parts = [validator.first] if validator else [], self._parts
        with parts.lockstep():
            parts.readings.begin(self._student, [batch for _, batch in drawn], looked_at, epoch=self._progress.epoch)
            parts.exam.begin(self._student, looked_at or [batch for _, batch in window])
        return time.perf_counter() - asked

    def _one_step(self, window: Window, count: WindowCount, clock: float) -> None:
        """One optimizer step and its events; `clock` is the time at which it began."""
        progress, parts = self._progress, self._parts
        rows = parts.cards.choose(window, epoch=progress.epoch)
        taken = parts.step.take(window, rows, count.tokens, progress)
        if taken is None:
            return
        progress.count_step(taken.loss, count.tokens)
        self._report.step = progress.step
        self._tell_step(count, taken, time.perf_counter() - clock)
        with parts.lockstep():
            parts.cards.show(window, taken.readouts, student=self._student, epoch=progress.epoch, loss=taken.loss)
            parts.exam.after_step(self._student, step=progress.step, epoch=progress.epoch)
            parts.readings.after_step(self._student, step=progress.step, epoch=progress.epoch)
        parts.stages.after_step(progress.step)

    def _tell_step(self, count: WindowCount, taken: StepTaken, seconds: float) -> None:
        self._report.tell(
            StepDone,
            epoch=self._progress.epoch,
            batch=self._progress.batches + count.batches - 1,
            loss=taken.loss,
            kd=taken.kd,
            ce=None if count.is_written else taken.ce,
            learning_rate=taken.learning_rate,
            grad_norm=taken.grad_norm,
            tokens=count.tokens,
            step_seconds=seconds,
            skipped_batches=self._progress.skipped,
            hidden=taken.hidden if self._config.distill.hidden_weight else None,
            attention=taken.attention if self._config.distill.attention_weight else None,
            router=taken.router or None,  # never 0 where there is one
        )

    def _keep(self, *, is_due: bool, score: float | None = None) -> None:
        """Save a checkpoint if one is due; end the run if a signal requests it, or the record cannot be written."""
        due, lost, signal = self._vote(is_due=is_due)
        if (keeper := self._checkpoints) is not None and (due or lost or signal):
            with suppress(StorageError) if lost else nullcontext():  # the disk that the record is on may be full
                keeper.save(self._state, score=score)
        self._end_if_stopped(signal)

    def _vote(self, *, is_due: bool) -> Vote:
        return self._together.vote(is_due=is_due, is_lost=self._report.lost is not None, signal=self._stop.signal)

    def _end_if_stopped(self, signal: int) -> None:
        self._end_if_lost()
        if signal:
            raise Interrupted("stopped by a signal, the run is saved", signal=signal)

    def _end_if_lost(self) -> None:
        if self._report.lost is not None:
            raise self._report.lost

    def _is_done(self) -> bool:
        return self._config.train.max_steps is not None and self._progress.step >= self._config.train.max_steps
