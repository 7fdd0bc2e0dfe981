"""One run of the loop: its models, how far it has come, a step, an epoch, all of them.

Tensors end here. Knows nothing of what an event means or how it looks.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from math import isfinite
from typing import Any

from accelerate import Accelerator
from torch import device, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from apt_model.config import LessonConfig
from apt_model.distill.batches import Walk, Window
from apt_model.distill.beyond import Beyond
from apt_model.distill.cards import Cards
from apt_model.distill.checkpoints.generators import RestoredGenerators
from apt_model.distill.checkpoints.manager import Checkpoints, RunState, Stateful, identity
from apt_model.distill.checkpoints.progress import Progress
from apt_model.distill.checks import refuse_empty
from apt_model.distill.exam import Exam
from apt_model.distill.grader import Grader
from apt_model.distill.interrupt import Stop
from apt_model.distill.losses.readout import numbers
from apt_model.distill.nonfinite import NonFinite, clip
from apt_model.distill.out_of_memory import explained_out_of_memory
from apt_model.distill.reporter import Reporter
from apt_model.distill.setup import make_optimizer, make_schedule, run_length, shard, sum_over_processes
from apt_model.distill.teachers.live import TeacherSource, as_source
from apt_model.distill.validation import Validator
from apt_model.errors import Interrupted, StorageError
from apt_model.events.records import EpochFinished, EpochStarted, RunFinished, RunStarted, StepDone, Validation
from apt_model.events.sinks import Audience
from apt_model.models.forward import Forward, model_card, shared_vocabulary, vocabulary_of


class Run:
    """One call of `distill`: its models, and how far it has come. `beyond` lets go of the optimizer in the end."""

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        student: nn.Module,
        teacher: nn.Module | TeacherSource,
        batches: Iterable[Any],
        eval_batches: Iterable[Any] | None,
        audience: Audience,
        config: LessonConfig,
        tokenizer: Any,
        teacher_tokenizer: Any,
        teacher_place: device | None,
        observe_samples: bool,
        holds_exams: bool,
        checkpoints: Checkpoints | None,
        stop: Stop,
    ) -> None:
        self._accelerator, self._config = accelerator, config
        self._checkpoints, self._stop = checkpoints, stop
        self._progress = Progress()
        self._tokenizers = {"tokenizer": tokenizer, "teacher_tokenizer": teacher_tokenizer}
        place, speaks = accelerator.device, accelerator.is_main_process
        self._report = Reporter(audience, device=place, speaks=speaks, **self._tokenizers)
        source = as_source(teacher, place, teacher_place)
        source.begin(config.distill)
        self._models = source.card, model_card(student)
        self._vocabulary = shared_vocabulary(source.vocabulary, vocabulary_of(student))
        self.beyond = Beyond(
            config, student, source.model, accelerator=accelerator, tokenizer=tokenizer, vocabulary=self._vocabulary
        )
        self._grader = Grader(
            student=Forward(student, "student"),
            teacher=source,
            accelerator=accelerator,
            config=config.distill,
            train=config.train,
            matcher=self.beyond.matcher,
            say=self._report.say,
        )
        self._validator, self._first_looked_at = None, None
        if eval_batches is not None and accelerator.is_main_process:
            self._validator = Validator(
                eval_batches,
                grader=self._grader,
                max_length=config.train.max_length,
                **self._tokenizers,
                given_tokens=config.display.given_tokens,
                device=accelerator.device,
            )
            self._first_looked_at = self._validator.check()
        self._nonfinite = NonFinite(config.train, grader=self._grader, report=self._report, keeper=checkpoints)
        self._cards = Cards(self._report, config.display, self._validator, wanted=observe_samples)
        self._exam = Exam(
            config.display,
            report=self._report,
            guard=audience.guard,
            accelerator=accelerator,
            teacher=source.model,
            **self._tokenizers,
            by_itself=holds_exams,
        )
        self._batches = shard(batches, accelerator)
        self._student = student
        self._validation: Validation | None = None
        self._epochs, self._total_steps = run_length(self._batches, config.train)

    def prepare(
        self, optimizer: Optimizer | None, scheduler: LRScheduler | None, keep_too: Mapping[str, Stateful]
    ) -> None:
        """Move the student to the device and give it its optimizer and schedule."""
        train, student = self._config.train, self._student
        self._student = self._accelerator.prepare_model(self._student)
        own = optimizer is None and scheduler is None
        optimizer = optimizer or make_optimizer(self._student, train)
        self.beyond.join(optimizer)
        self._scheduler = make_schedule(optimizer, train, self._total_steps) if own else scheduler
        falls = train.lr_scheduler_type != "constant_with_warmup" or train.warmup_ratio > 0
        self._is_rate_kept = own and self._total_steps is None and falls
        self._optimizer = self._accelerator.prepare_optimizer(optimizer)
        self._optimizer.zero_grad()
        self._trained = [p for group in optimizer.param_groups for p in group["params"]]
        own_parts = {"schedule": self._scheduler, "scaler": self._accelerator.scaler, "report": self._report}
        others = {name: one for name, one in {**own_parts, "run": self, **keep_too}.items() if one is not None}
        self._state = RunState(
            student=student,
            beside=self.beyond.beside,
            optimizer=optimizer,
            progress=self._progress,
            others=others,
            identity=identity(
                self._config,
                self._models,
                self._batches,
                processes=self._accelerator.num_processes,
                optimizer=optimizer,
                keeps=others,
                student_model=student,
            ),
            device=self._accelerator.device,
            loader=self._batches,
        )
        self._walk = Walk(
            self._batches,
            check=self._grader.check,
            **self._tokenizers,
            config=train,
            keeper=self._checkpoints,
            state=self._state,
        )

    def all_epochs(self, notices: Iterable[tuple[str, Mapping[str, str | int | float]]]) -> RunFinished:
        """Train, telling the audience; returns the verdict."""
        progress, keeper = self._progress, self._checkpoints
        if keeper is not None:
            keeper.check(self._state)
        self._report.tell(
            RunStarted,
            teacher=self._models[0],
            student=self._models[1],
            config=self._config.to_dict(),
            num_epochs=self._epochs,
            total_steps=self._total_steps,
            device=str(self._accelerator.device),
            vocabulary=self._vocabulary,
        )
        for key, values in (*notices, *self.beyond.notices()):
            self._report.say(key, **values)
        if self._is_rate_kept:
            self._report.say("notice.no_length", schedule=self._config.train.lr_scheduler_type)
        restored = self._take_up(keeper) if keeper is not None and keeper.newest is not None else None
        if restored is None:  # else the record was cut back, so what was not written until now is no loss
            self._end_if_lost()
        started = time.perf_counter() - progress.seconds
        while not progress.finished or (
            not self._is_done() and (self._config.train.max_steps or progress.epoch < self._epochs)
        ):
            self._one_epoch(started, restored)
        first_loss, last_loss = progress.losses.ends(0.1) or (None, None)
        verdict = self._report.tell(
            RunFinished,
            epochs=progress.epoch,
            tokens=progress.tokens,
            skipped_batches=progress.skipped,
            seconds=time.perf_counter() - started,
            first_loss=first_loss,
            last_loss=last_loss,
            validation=self._validation,
        )
        self._end_if_lost()
        return verdict

    def _take_up(self, keeper: Checkpoints) -> RestoredGenerators:
        """Go on from a checkpoint. What was said until now stands behind its place in the record, and is cut off."""
        restored = keeper.restore(self._state)
        self._report.step = self._progress.step
        if self._progress.finished or self._is_done():
            self._state.at_epoch_start = restored.set_to_epoch_start(self._state.device, self._batches)
            restored.set_to_save(self._state.device, self._batches)
        return restored

    def _one_epoch(self, run_started: float, restored: RestoredGenerators | None) -> None:
        progress = self._progress
        if progress.finished:
            progress.begin_epoch()
            self._epochs = max(self._epochs, progress.epoch)  # with max_steps and data of no length, not known before
            self._report.tell(EpochStarted, epoch=progress.epoch, num_epochs=self._epochs)
        started = time.perf_counter() - progress.epoch_seconds
        clock = time.perf_counter()
        for window in self._walk.windows(restored) if not self._is_done() else ():
            self._one_step(window, clock)
            progress.batches += len(window)
            clock = time.perf_counter()
            progress.seconds, progress.epoch_seconds = clock - run_started, clock - started
            if self._is_done():
                break
            self._keep(is_due=self._checkpoints is not None and self._checkpoints.is_due(progress.step))
        refuse_empty(progress.epoch, progress.batches, progress.epoch_steps)
        measured = self._validator.measure(self._student, self._report) if self._validator else None
        self._exam.after_epoch(self._student, epoch=progress.epoch)
        mean_loss = progress.epoch_loss_sum / progress.epoch_tokens if progress.epoch_tokens else None
        score = measured.loss if measured else mean_loss
        is_cut = self._is_done()
        if is_cut:  # kept as it is before its end is told: with more max_steps, the epoch goes on here
            self._keep(is_due=True, score=score)
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
        self._validation = scored.validation and replace(scored.validation, pairs=())
        progress.finished = True
        if not is_cut:
            self._keep(is_due=True, score=score)

    def _keep(self, *, is_due: bool, score: float | None = None) -> None:
        """A checkpoint where one is due; the end of the run where somebody asked for it, or the record is lost."""
        keeper, lost = self._checkpoints, self._report.lost
        if keeper is not None and (is_due or lost or self._stop.signal):
            with suppress(StorageError) if lost else nullcontext():  # the disk that the record is on may be full
                keeper.save(self._state, score=score)
        self._end_if_lost()
        if self._stop.signal:
            raise Interrupted("stopped by a signal, the run is saved", signal=self._stop.signal)

    def _end_if_lost(self) -> None:
        if self._report.lost is not None:
            raise self._report.lost

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the counters: the last validation, the place in its data."""
        return {
            "validation": self._validation and {**asdict(self._validation), "pairs": []},
            "looked_at": self._validator.taken if self._validator else 0,
            "exam": self._exam.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` kept."""
        self._validation = state["validation"] and Validation(**{**state["validation"], "pairs": ()})
        if self._validator is not None:
            self._validator.skip(state["looked_at"])
        if "exam" in state:  # not in a checkpoint from before there were exams
            self._exam.load_state_dict(state["exam"])

    def _one_step(self, window: Window, clock: float) -> None:
        """One optimizer step over a window of batches; none where not one position in it can be learned from."""
        progress = self._progress
        window = self.beyond.window(self._student, window, step=progress.step + 1)
        counts = [batch.label_count for _, batch in window]
        progress.count_skipped(counts.count(0))
        if 0 in counts:
            self._report.say("notice.no_labels", batch=window[counts.index(0)][0], epoch=progress.epoch)
        tokens = sum_over_processes(sum(counts), self._accelerator)
        if not tokens:
            return
        rows, batches = self._cards.choose(window, epoch=progress.epoch), [batch for _, batch in window]
        asked = time.perf_counter()
        self._exam.begin(self._student, batches if self._first_looked_at is None else [self._first_looked_at])
        clock += time.perf_counter() - asked  # no part of a step
        with explained_out_of_memory(progress.step + 1, batches):
            sums, readouts = self._grader.learn(self._student, batches, rows, tokens)
            norm = clip(self._accelerator, self._trained, self._config.train)
            kd, ce, hidden, attention, grad_norm = numbers([*(self._accelerator.reduce(sums) / tokens), norm])
        learning_rate = float(self._optimizer.param_groups[0]["lr"])
        loss, scaler = self._grader.weigh(kd, ce, hidden, attention), self._accelerator.scaler
        is_overflow = scaler is not None and isfinite(loss) and not isfinite(grad_norm) and scaler.get_scale() > 1
        if not is_overflow and not self._nonfinite.allows(loss, grad_norm, window, progress):
            self._optimizer.zero_grad()
            if scaler is not None:
                scaler.update()  # ends what the look at the gradients has begun
            return
        with explained_out_of_memory(progress.step + 1, batches):
            self._optimizer.step()
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)
        elif self._scheduler is not None and not self._accelerator.optimizer_step_was_skipped:
            self._scheduler.step()
        self._optimizer.zero_grad()
        progress.count_step(loss, tokens)
        self._report.step = progress.step
        self._report.tell(
            StepDone,
            epoch=progress.epoch,
            batch=window[-1][0],
            loss=loss,
            kd=kd,
            ce=None if batches[0].is_written else ce,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens=tokens,
            step_seconds=time.perf_counter() - clock,
            skipped_batches=progress.skipped,
            hidden=hidden if self._config.distill.hidden_weight else None,
            attention=attention if self._config.distill.attention_weight else None,
        )
        self._cards.show(window, rows, readouts, student=self._student, epoch=progress.epoch, loss=loss)
        self._exam.after_step(self._student, step=progress.step, epoch=progress.epoch)

    def _is_done(self) -> bool:
        return self._config.train.max_steps is not None and self._progress.step >= self._config.train.max_steps
