"""Events of one `trainer.train()`: steps from the trainer's logs, cards and readings of the probe, epochs, verdict.

Knows `TrainerState` and the keys that trainers log; never changes model, optimizer or data.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from apt_model.distill.readings import Readings
from apt_model.distill.reporter import Reporter
from apt_model.events.records import EpochFinished, EpochStarted, ModelCard, RunFinished, RunStarted, StepDone
from apt_model.events.series import BoundedSeries
from apt_model.events.sinks import Guard
from apt_model.integrations.probe import FixedRows, RowComparison

TOKENS_SEEN = ("num_tokens", "num_input_tokens_seen")  # as TRL and transformers log them


class TrainerRun:
    """Turns a trainer's calls into events.

    Args:
        report: sends events to the audience.
        probe: source of the cards.
        readings: of all its rows.
        student: the model in training.
        guard: catches a probe that fails; no card is shown after that.
        every: optimizer steps between two cards.
        state: the trainer's, when training begins: at step 0, or at a checkpoint's step.
        batches_per_epoch: as transformers counts them.
    """

    def __init__(
        self,
        *,
        report: Reporter,
        probe: FixedRows,
        readings: Readings,
        student: nn.Module,
        guard: Guard,
        every: int,
        state: Any,
        batches_per_epoch: int,
    ) -> None:
        self._report, self._student, self._guard, self._every = report, student, guard, every
        self._probe: FixedRows | None = probe
        self._readings = readings
        self._batches_per_epoch = batches_per_epoch
        self._epoch = int(state.epoch or 0)
        self._losses = BoundedSeries()
        self._logged = state.global_step
        self._seen, self._tokens = state.num_input_tokens_seen, None  # type: int, int | None
        self._started = self._clock = time.perf_counter()
        self._ended: float | None = None  # when the epoch ended, while it waits for its loss
        self._has_shown = False
        self._open_epoch()
        report.step = state.global_step

    def begin(
        self,
        state: Any,
        *,
        teacher: ModelCard,
        student: ModelCard,
        config: Mapping[str, Any],
        device: str,
        by: str,
        learns_from_teacher: bool,
    ) -> None:
        """Training is about to begin."""
        self._report.tell(
            RunStarted,
            teacher=teacher,
            student=student,
            config=config,
            num_epochs=self._epochs(state),
            total_steps=state.max_steps,
            device=device,
            trained_by=by,
            learns_from_teacher=learns_from_teacher,
        )

    def epoch_begin(self, state: Any) -> None:
        """An epoch begins; before the first step, a card of the untrained student, and the first reading."""
        self._finish_epoch(state)
        self._epoch += 1
        self._open_epoch()
        self._report.tell(EpochStarted, epoch=self._epoch, num_epochs=self._epochs(state))
        if not self._has_shown:
            self._show(state)
            self._readings.begin(self._student, (), epoch=self._epoch)

    def step_end(self, state: Any) -> None:
        """An optimizer step was taken."""
        self._report.step = state.global_step
        if state.global_step % self._every == 0:
            self._show(state)
        self._readings.after_step(self._student, step=state.global_step, epoch=self._epoch)

    def log(self, state: Any, logs: Mapping[str, Any]) -> None:
        """The trainer has logged; an entry with a training loss becomes a step event."""
        if "loss" not in logs:
            return
        now, steps = time.perf_counter(), max(1, state.global_step - self._logged)
        loss, norm = float(logs["loss"]), logs.get("grad_norm")
        tokens = self._count(logs)
        self._losses.add(loss)
        self._loss_sum += loss * steps
        self._loss_steps += steps
        self._report.tell(
            StepDone,
            epoch=self._epoch,
            batch=self._batch(state),
            loss=loss,
            kd=None,
            ce=None,
            learning_rate=float(logs.get("learning_rate", 0.0)),
            grad_norm=None if norm is None else float(norm),
            tokens=tokens,
            step_seconds=(now - self._clock) / steps,
            skipped_batches=0,
        )
        self._clock, self._logged = now, state.global_step
        if self._ended is not None:
            self._finish_epoch(state)

    def epoch_end(self, state: Any, *, will_log: bool) -> None:
        """An epoch ends; its report card waits for the loss if that is logged only after this call."""
        self._ended = time.perf_counter()
        self._readings.after_epoch(self._student, epoch=self._epoch)
        if not (will_log and state.global_step > self._logged):
            self._finish_epoch(state)

    def end(self, state: Any) -> RunFinished:
        """Training is over."""
        self._finish_epoch(state)
        self._readings.at_end(self._student, epoch=self._epoch)
        first_loss, last_loss = self._losses.ends(0.1) or (None, None)
        return self._report.tell(
            RunFinished,
            epochs=self._epoch,
            tokens=self._tokens,
            skipped_batches=0,
            seconds=time.perf_counter() - self._started,
            first_loss=first_loss,
            last_loss=last_loss,
        )

    def _open_epoch(self) -> None:
        self._loss_sum, self._loss_steps = 0.0, 0
        self._epoch_started, self._epoch_tokens = time.perf_counter(), self._tokens

    def _finish_epoch(self, state: Any) -> None:
        if self._ended is None:
            return
        ended, self._ended = self._ended, None
        tokens = None if self._tokens is None else self._tokens - (self._epoch_tokens or 0)
        self._report.tell(
            EpochFinished,
            epoch=self._epoch,
            num_epochs=self._epochs(state),
            mean_loss=self._loss_sum / self._loss_steps if self._loss_steps else None,
            tokens=tokens,
            skipped_batches=0,
            seconds=ended - self._epoch_started,
        )

    def _show(self, state: Any) -> None:
        """Show a card; the step chooses the row, so that a resumed run shows the same ones as an uninterrupted run."""
        self._has_shown = True
        if self._probe is None:
            return
        probe, turn = self._probe, state.global_step // self._every
        row: RowComparison | None = self._guard.run(
            "probe", lambda: probe.compare(self._student, turn=turn, say=self._report.say), None
        )
        if row is None:
            self._probe = None
            return
        self._report.observe(row.readout, batch=self._batch(state), epoch=self._epoch, loss=row.loss, source="probe")

    def _count(self, logs: Mapping[str, Any]) -> int | None:
        """Tokens seen since the last log; None if the trainer does not count them."""
        seen = next((int(logs[key]) for key in TOKENS_SEEN if key in logs), None)
        if seen is None:
            return None
        new, self._seen = seen - self._seen, seen
        self._tokens = (self._tokens or 0) + new
        return new

    def _batch(self, state: Any) -> int:
        """Index in the epoch of the last batch."""
        done = (state.epoch or 0.0) - (self._epoch - 1)
        return max(0, round(done * self._batches_per_epoch) - 1)

    def _epochs(self, state: Any) -> int:
        """Number of epochs; a trainer whose data has no length gives `sys.maxsize`."""
        known = state.num_train_epochs if state.num_train_epochs < sys.maxsize else 0
        return max(self._epoch, known)
