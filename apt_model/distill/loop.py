"""The distillation loop: batches in, a taught student and a stream of events out.

Tensors end here. What an event means, and how it looks, is the audience's business; with or without one, the student
comes out the same to the last bit.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from apt_model.config import LessonConfig
from apt_model.distill.cards import Cards
from apt_model.distill.checks import check_trainable, refuse_empty, refuse_nonfinite, refuse_shared_weights
from apt_model.distill.forward import Forward, model_card
from apt_model.distill.grader import Grader
from apt_model.distill.readout import numbers
from apt_model.distill.reporter import Reporter
from apt_model.distill.setup import (
    accelerate_state_of_our_own,
    make_accelerator,
    make_optimizer,
    make_schedule,
    shard,
    steps_per_epoch,
    sum_over_processes,
    trained,
)
from apt_model.distill.teachers import TeacherSource, as_source, frozen
from apt_model.distill.validation import Validator
from apt_model.errors import ConfigError
from apt_model.events.records import (
    EpochFinished,
    EpochStarted,
    RunFinished,
    RunStarted,
    StepDone,
    Validation,
)
from apt_model.events.series import BoundedSeries
from apt_model.events.sinks import Audience
from apt_model.training.batch import Batch, to_batch


def distill(
    *,
    student: nn.Module,
    teacher: nn.Module | TeacherSource,
    batches: Iterable[Any],
    audience: Audience,
    config: LessonConfig,
    device: torch.device,
    eval_batches: Iterable[Any] | None = None,
    tokenizer: Any = None,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    observe_samples: bool = True,
    notices: Iterable[tuple[str, Mapping[str, str | int | float]]] = (),
) -> RunFinished:
    """Teach `student` what `teacher` knows.

    Args:
        student: any module from token ids to logits; trained in place, handed back in eval mode.
        teacher: the same, larger; frozen meanwhile, its bytes and flags unchanged afterwards. Or a `CachedTeacher`.
        batches: a DataLoader or any iterable, of anything that `to_batch` takes; iterated once an epoch.
        audience: gets every event; nothing it does reaches the training.
        config: weights, length, precision; of its display only `sample_frequency`, `given_tokens` and `show_on`
            matter here.
        device: where to train.
        eval_batches: data to look at, not to learn from: measured after each epoch by the main process.
        tokenizer: decodes what is shown, encodes batches of strings.
        optimizer: AdamW with weight decay on matrices only, where None; its rate then follows `lr_scheduler_type`.
        scheduler: steps after each optimizer step; with an optimizer of your own, None leaves its rate alone.
        observe_samples: read texts out of every `sample_frequency`-th batch.
        notices: (key, values) of sentences that the audience should hear once the run has started.

    Returns:
        The verdict, as the audience scored it.

    Raises:
        ConfigError, DataError, ModelError: before the first step wherever that is possible.
        NumericError: loss or gradient is not finite; raised before the optimizer step, so the weights are still good.
    """
    if config.display.show_on == "validation" and eval_batches is None:
        raise ConfigError("show_on is 'validation', but there is no validation data", fix="pass eval_dataloader=")
    if isinstance(teacher, nn.Module):
        refuse_shared_weights(student, teacher)
    check_trainable(student, optimizer)
    if scheduler is not None and optimizer is None:
        raise ConfigError("a scheduler needs the optimizer that it was made for", fix="pass optimizer= too")
    if config.train.seed is not None:
        set_seed(config.train.seed)
    with accelerate_state_of_our_own(), frozen(teacher), trained(student):
        run = _Run(
            accelerator=make_accelerator(device, config.train.mixed_precision),
            student=student,
            teacher=teacher,
            batches=batches,
            eval_batches=eval_batches,
            audience=audience,
            config=config,
            tokenizer=tokenizer,
            observe_samples=observe_samples,
        )
        run.prepare(optimizer, scheduler)
        return run.all_epochs(notices)


class _Run:
    """One call of `distill`: its models, and how far it has come."""

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
        observe_samples: bool,
    ) -> None:
        self._accelerator, self._config = accelerator, config
        self._report = Reporter(
            audience, tokenizer=tokenizer, device=accelerator.device, speaks=accelerator.is_main_process
        )
        source = as_source(teacher, accelerator.device)
        source.begin(config.distill)
        self._models = source.card, model_card(student)
        self._grader = Grader(
            student=Forward(student, "student"),
            teacher=source,
            accelerator=accelerator,
            config=config.distill,
            train=config.train,
            say=self._report.say,
        )
        self._validator = None
        if eval_batches is not None and accelerator.is_main_process:
            self._validator = Validator(
                eval_batches,
                grader=self._grader,
                tokenizer=tokenizer,
                max_length=config.train.max_length,
                given_tokens=config.display.given_tokens,
                device=accelerator.device,
            )
            self._validator.check()
        self._cards = Cards(self._report, config.display, self._validator, wanted=observe_samples)
        self._batches = shard(batches, accelerator)
        self._tokenizer = tokenizer
        self._student = student
        self._epoch = self._skipped = self._tokens = 0
        self._losses = BoundedSeries()
        self._validation: Validation | None = None
        self._epochs, self._total_steps = self._length()

    def prepare(self, optimizer: Optimizer | None, scheduler: LRScheduler | None) -> None:
        """Move the student to the device and give it its optimizer and schedule."""
        train = self._config.train
        self._student = self._accelerator.prepare_model(self._student)
        own = optimizer is None
        optimizer = optimizer or make_optimizer(self._student, train)
        self._scheduler = make_schedule(optimizer, train, self._total_steps) if own and scheduler is None else scheduler
        self._optimizer = self._accelerator.prepare_optimizer(optimizer)
        self._optimizer.zero_grad()
        self._trained = [p for group in optimizer.param_groups for p in group["params"]]

    def _length(self) -> tuple[int, int | None]:
        """Epochs to do, and optimizer steps in all where that can be known."""
        train = self._config.train
        per_epoch = steps_per_epoch(self._batches, train.gradient_accumulation_steps)
        if train.max_steps is None:
            return train.num_epochs, None if per_epoch is None else per_epoch * train.num_epochs
        return (-(-train.max_steps // per_epoch) if per_epoch else train.num_epochs), train.max_steps

    def all_epochs(self, notices: Iterable[tuple[str, Mapping[str, str | int | float]]]) -> RunFinished:
        """Train, telling the audience; returns the verdict."""
        started = time.perf_counter()
        teacher, student = self._models
        self._report.tell(
            RunStarted,
            teacher=teacher,
            student=student,
            config=self._config.to_dict(),
            num_epochs=self._epochs,
            total_steps=self._total_steps,
            device=str(self._accelerator.device),
        )
        for key, values in notices:
            self._report.say(key, **values)
        while not self._is_done() and (self._config.train.max_steps or self._epoch < self._epochs):
            self._epoch += 1
            self._epochs = max(
                self._epochs, self._epoch
            )  # with max_steps and data of no length, it is not known before
            self._one_epoch()
        first_loss, last_loss = self._losses.ends(0.1) or (None, None)
        return self._report.tell(
            RunFinished,
            epochs=self._epoch,
            tokens=self._tokens,
            skipped_batches=self._skipped,
            seconds=time.perf_counter() - started,
            first_loss=first_loss,
            last_loss=last_loss,
            validation=self._validation,
        )

    def _one_epoch(self) -> None:
        started, tokens_before, steps_before = time.perf_counter(), self._tokens, self._report.step
        skipped_before, batches, loss_sum = self._skipped, 0, 0.0
        self._report.tell(EpochStarted, epoch=self._epoch, num_epochs=self._epochs)
        if hasattr(self._batches, "set_epoch"):
            self._batches.set_epoch(self._epoch - 1)
        clock = time.perf_counter()
        for window in self._windows():
            batches += len(window)
            done = self._one_step(window, clock)
            clock = time.perf_counter()
            if done is not None:
                loss_sum += done.loss * done.tokens
            if self._is_done():
                break
        refuse_empty(self._epoch, batches, self._report.step - steps_before)
        tokens = self._tokens - tokens_before
        measured = self._validator.measure(self._student, self._report.decode) if self._validator else None
        scored = self._report.tell(
            EpochFinished,
            epoch=self._epoch,
            num_epochs=self._epochs,
            mean_loss=loss_sum / tokens if tokens else None,
            tokens=tokens,
            skipped_batches=self._skipped - skipped_before,
            seconds=time.perf_counter() - started,
            validation=measured,
        )
        self._validation = scored.validation and replace(scored.validation, pairs=())

    def _windows(self) -> Iterator[list[tuple[int, Batch]]]:
        """Numbered batches, as many at a time as make one optimizer step; checked, still on the CPU."""
        window: list[tuple[int, Batch]] = []
        for index, raw in enumerate(self._batches):
            batch = to_batch(raw, tokenizer=self._tokenizer, max_length=self._config.train.max_length)
            self._grader.check(batch)
            window.append((index, batch))
            if len(window) == self._config.train.gradient_accumulation_steps:
                yield window
                window = []
        if window:
            yield window

    def _one_step(self, window: list[tuple[int, Batch]], clock: float) -> StepDone | None:
        """One optimizer step over a window of batches; None where not one position in it can be learned from."""
        counts = [batch.label_count for _, batch in window]
        self._skipped += counts.count(0)
        if 0 in counts:
            self._report.say("notice.no_labels", batch=window[counts.index(0)][0], epoch=self._epoch)
        tokens = sum_over_processes(sum(counts), self._accelerator)
        if not tokens:
            return None
        rows = self._cards.choose(window, epoch=self._epoch)
        sums, readouts = self._grader.learn(self._student, [batch for _, batch in window], rows, tokens)
        kd, ce, grad_norm = numbers([*(self._accelerator.reduce(sums) / tokens), self._clip()])
        learning_rate = self._optimizer.param_groups[0]["lr"]
        loss = self._grader.weigh(kd, ce)
        overflow_is_handled = self._accelerator.scaler is not None
        refuse_nonfinite(self._report.step + 1, loss, 0.0 if overflow_is_handled else grad_norm)
        self._optimizer.step()
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)
        elif self._scheduler is not None and not self._accelerator.optimizer_step_was_skipped:
            self._scheduler.step()
        self._optimizer.zero_grad()
        self._report.step += 1
        self._tokens += tokens
        self._losses.add(loss)
        done = self._report.tell(
            StepDone,
            epoch=self._epoch,
            batch=window[-1][0],
            loss=loss,
            kd=kd,
            ce=ce,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens=tokens,
            step_seconds=time.perf_counter() - clock,
            skipped_batches=self._skipped,
        )
        self._cards.show(window, rows, readouts, student=self._student, epoch=self._epoch, loss=loss)
        return done

    def _clip(self) -> Tensor:
        norm = self._accelerator.clip_grad_norm_(self._trained, self._config.train.max_grad_norm or inf)
        assert isinstance(norm, Tensor)  # noqa: S101 - None only under DeepSpeed, which is not offered
        return norm

    def _is_done(self) -> bool:
        return self._config.train.max_steps is not None and self._report.step >= self._config.train.max_steps
