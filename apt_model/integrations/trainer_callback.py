"""Callback that shows the training of a `transformers.Trainer`, or of a trainer derived from it (TRL's).

Training is exactly the same with and without it: what is shown comes from fixed rows, read between the steps. Knows the
trainer's callbacks; knows nothing of its loss.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from apt_model.config import LessonConfig
from apt_model.data.batch import to_batch
from apt_model.data.encode import refuse_other_tokenizer
from apt_model.distill.checks import refuse_shared_weights
from apt_model.distill.readings import Readings
from apt_model.distill.reporter import Reporter
from apt_model.errors import ModelError
from apt_model.events.runfile import EVENTS, RunFile
from apt_model.events.sinks import Audience, EventWatcher, Sink
from apt_model.integrations.probe import FixedRows, first_rows
from apt_model.integrations.tqdm_terminal import TqdmTerminalSink
from apt_model.integrations.trainer_run import TrainerRun
from apt_model.integrations.trainer_settings import names_a_teacher, read_settings, run_settings
from apt_model.models.forward import model_card
from apt_model.plugins.session import refuse_unrecorded_dashboard
from apt_model.plugins.viewer import Viewer, open_page
from apt_model.render.watch import default_sink
from apt_model.teaching.classroom import Classroom
from apt_model.teaching.similarity import Similarity, text_similarity
from apt_model.teaching.spikes import SpikeWatch

VALIDATION = "notice.probe_validation"


class VisualDistillationCallback(Classroom, TrainerCallback):
    """Shows a trainer's training as a lesson: `Trainer(..., callbacks=[VisualDistillationCallback(teacher)])`.

    Every `sample_frequency` optimizer steps it shows a card: teacher and student on a row of the probe, one row after
    the other, both in eval mode. The loss on the card is that row's `alpha * KD + beta * CE` with KL(teacher ‖ student)
    at `temperature`, whatever the trainer's loss is; curves, report cards and verdict have the loss that the trainer
    logs. All rows of the probe are read at the start, at each epoch's end, every `reading_frequency` steps and at the
    end. There are no exams. The training is bit for bit what it would be without. With several processes, all run the
    probe (sharded models need all), and the first one shows it.

    A trainer that does not learn from the teacher (SFT, DPO, a plain `Trainer`) is shown as observed: the student is
    compared with the teacher, and no remark, light, trend or advice judges it as a pupil.

    Args:
        teacher: any causal language model with the student's tokenizer, e.g. the one given to the trainer. It is
            moved to the student's device.
        tokenizer: the teacher's; None: the trainer's `processing_class`.
        config: flat keys of the display, `temperature`, `alpha` and `beta` (of the loss on a card), `max_length` (of
            the probe's rows), or `preset`; or a `LessonConfig`. Settings that the callback does not read are refused:
            `trainer_settings.READ` lists those that it reads.
        probe: a batch in any form that `to_batch` takes, such as a list of texts. None: the first sixteen rows of the
            trainer's evaluation data, if it has evaluated already, else of its training data. Required if that is a
            stream; needed too if reading a row changes the dataset.
        run_dir: directory of the record; that of a resumed training goes into a directory inside.
        sinks: the displays; None: a notebook or terminal.
        similarity: `(teacher text, student text) -> 0..1`; difflib's ratio unless given.
        learns_from_teacher: whether the trainer's loss teaches the student what this teacher says. None: if the
            trainer's settings name a teacher model, as TRL's GKDConfig and DistillationConfig do. Pass True for a
            trainer with such a loss of your own, or for labels that the teacher wrote.

    Attributes:
        topic_keywords, stats, generate_comment: as in `VisualDistillationPlugin`.

    Raises:
        ConfigError: an unknown or bad setting, or one that the callback does not read.
        ModelError: no teacher; when training begins, one that shares weights with the student.
        DataError: when training begins: another tokenizer, or rows from which no card can be made.
        StorageError: when training begins: `run_dir` cannot be written, or holds another run.
    """

    def __init__(
        self,
        teacher: nn.Module,
        tokenizer: Any = None,
        config: Mapping[str, Any] | LessonConfig | None = None,
        *,
        probe: Any = None,
        run_dir: str | Path | None = None,
        sinks: Sequence[Sink] | None = None,
        similarity: Similarity = text_similarity,
        learns_from_teacher: bool | None = None,
    ) -> None:
        if not isinstance(teacher, nn.Module):
            got = "None" if teacher is None else f"{type(teacher).__name__}"
            fix = "pass the teacher model, e.g. load_model(name)[0]"
            raise ModelError("teacher is not a model", got=got, expected="a torch.nn.Module", fix=fix)
        self.config = read_settings(config)
        refuse_unrecorded_dashboard(self.config.display, run_dir)
        super().__init__(self.config.display, similarity=similarity)
        self._teacher, self._tokenizer, self._batch = teacher, tokenizer, probe
        self._run_dir, self._sinks = None if run_dir is None else Path(run_dir), sinks
        self._learns_from_teacher = learns_from_teacher
        self._run: TrainerRun | None = None
        self._audience: Audience | None = None
        self._pages: list[Viewer] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **trainer: Any) -> None:
        """Check that the training can be shown, before its first step; then start."""
        self._close()  # left open by a training that broke off
        student = trainer["model"]
        device = next(student.parameters()).device
        own = getattr(trainer.get("processing_class"), "tokenizer", trainer.get("processing_class"))
        own = own if hasattr(own, "get_vocab") else None
        tokenizer = self._tokenizer if self._tokenizer is not None else own
        if tokenizer is not own:
            refuse_other_tokenizer(tokenizer, own)
        refuse_shared_weights(student, self._teacher)
        probe, notice = self._make_probe(student, tokenizer, device, trainer)
        self._guard.failures.clear()
        learns = names_a_teacher(args) if self._learns_from_teacher is None else self._learns_from_teacher
        notices = [notice, *([] if learns else self._notices_of_observing(args)), *_notices_of_logging(state, args)]
        sinks = self._watchers(state, notices) if state.is_world_process_zero else []
        watchers: list[EventWatcher] = [SpikeWatch(), *self._pages]
        self._audience = Audience(sinks, scorer=self._scorer, watchers=watchers, guard=self._guard)
        report = Reporter(self._audience, tokenizer=tokenizer, device=device, speaks=state.is_world_process_zero)
        readings = Readings(
            self.config.display,
            [probe.row_set(student, unseen=notice[0] == VALIDATION)],
            report=report,
            guard=self._guard,
            total_steps=state.max_steps,
        )
        self._run = run = TrainerRun(
            report=report,
            probe=probe,
            readings=readings,
            student=student,
            guard=self._guard,
            every=self.config.display.sample_frequency,
            state=state,
            batches_per_epoch=_batches_per_epoch(trainer["train_dataloader"], state, args),
        )
        run.begin(
            state,
            teacher=model_card(self._teacher),
            student=model_card(student),
            config=run_settings(self.config),
            device=str(device),
            by=type(args).__name__,
            learns_from_teacher=learns,
        )
        for key, values in notices:
            report.say(key, **values)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **trainer: Any) -> None:
        """An epoch begins."""
        self._tell(lambda run: run.epoch_begin(state))

    def on_step_end(self, args: Any, state: Any, control: Any, **trainer: Any) -> None:
        """An optimizer step was taken: perhaps a card."""
        self._tell(lambda run: run.step_end(state))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **trainer: Any) -> None:
        """The trainer logged numbers."""
        self._tell(lambda run: run.log(state, logs or {}))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **trainer: Any) -> None:
        """An epoch ends: its report card."""
        self._tell(lambda run: run.epoch_end(state, will_log=control.should_log))

    def on_train_end(self, args: Any, state: Any, control: Any, **trainer: Any) -> None:
        """Training is over: the verdict."""
        self._tell(lambda run: run.end(state))
        self._close()

    def _close(self) -> None:
        if self._audience is not None:
            self._audience.close()
        self._run = self._audience = None

    def _tell(self, what: Callable[[TrainerRun], object]) -> None:
        """Pass a trainer's call to the run, if one is in progress. A failure here must not end the training."""
        if self._run is not None:
            self._guard.run(type(self).__name__, partial(what, self._run), None)

    def _make_probe(
        self, student: nn.Module, tokenizer: Any, device: torch.device, trainer: Mapping[str, Any]
    ) -> tuple[FixedRows, tuple[str, dict[str, Any]]]:
        most = self.config.train.max_length
        evaluated = trainer.get("eval_dataloader")
        if self._batch is not None:
            key, batch = "notice.probe_given", to_batch(self._batch, tokenizer=tokenizer, max_length=most)
        else:
            key = "notice.probe_training" if evaluated is None else VALIDATION
            loader = trainer["train_dataloader"] if evaluated is None else evaluated
            batch = first_rows(loader, tokenizer=tokenizer, max_length=most, device=device)
        bos = getattr(tokenizer, "bos_token_id", None)
        probe = FixedRows(batch, teacher=self._teacher, student=student, config=self.config, device=device, bos=bos)
        return probe, (key, {"rows": len(probe)})

    def _notices_of_observing(self, args: Any) -> list[tuple[str, dict[str, Any]]]:
        """The student does not learn from the teacher; if nobody said so, how to say that it does."""
        if self._learns_from_teacher is not None:
            return [("notice.observing", {})]
        return [("notice.observing", {}), ("notice.names_no_teacher", {"settings": type(args).__name__})]

    def _watchers(self, state: Any, notices: list[tuple[str, dict[str, Any]]]) -> list[Sink]:
        """The record, then the displays."""
        watchers: list[Sink] = []
        if self._run_dir is not None:
            where = _free_directory(self._run_dir, state.global_step)
            watchers.append(RunFile(where))
            self._pages = open_page(self.config, where, self._guard)
            if where != self._run_dir:
                notices.append(("notice.trainer_resumed", {"step": state.global_step, "path": str(where)}))
        if self._sinks is not None:
            return [*watchers, *self._sinks]
        make = partial(default_sink, self.config.display, terminal=TqdmTerminalSink)
        watcher = self._guard.run("default_sink", make, None)
        return watchers if watcher is None else [*watchers, watcher]


def _free_directory(run_dir: Path, step: int) -> Path:
    """The record's directory; for a resumed training whose `run_dir` has a record already, a new one inside."""
    if not step or not (run_dir / EVENTS).exists():
        return run_dir
    names = (f"from-step-{step}" + (f"-{number}" if number > 1 else "") for number in count(1))
    return next(path for path in (run_dir / name for name in names) if not (path / EVENTS).exists())


def _notices_of_logging(state: Any, args: Any) -> list[tuple[str, dict[str, Any]]]:
    """A notice if the trainer will not log its loss."""
    if args.logging_strategy == "no":
        return [("notice.never_logs", {})]
    steps = state.max_steps - state.global_step
    if args.logging_strategy == "steps" and state.logging_steps > steps > 0 and not args.logging_first_step:
        return [("notice.logs_late", {"every": state.logging_steps, "total": steps})]
    return []


def _batches_per_epoch(loader: Any, state: Any, args: Any) -> int:
    """Batches per epoch as transformers counts them; all steps are one epoch if the data has no length."""
    try:
        return len(loader)
    except TypeError:
        return int(state.max_steps * args.gradient_accumulation_steps)
