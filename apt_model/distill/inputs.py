"""Inputs of a distillation run, as four frozen records: models, data, checkpoints, audience.

Knows types; knows nothing of what a run does with them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.data.batch import Batch, to_batch
from apt_model.data.notices import KeyedNotice, Tell
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.distill.checkpoints.run_state import Stateful
from apt_model.distill.teachers.live import TeacherSource
from apt_model.events.records import Branch
from apt_model.events.sinks import Audience


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """Teacher and student with their tokenizers, and the student's optimizer and scheduler.

    Attributes:
        student: any module from token ids (B, L) to logits (B, L, V); trained in place.
        teacher: the same, larger; frozen during the run, unchanged afterwards. Or a `TeacherSource`, such as a
            `CachedTeacher`.
        tokenizer: decodes texts for the cards, encodes batches of strings.
        teacher_tokenizer: the teacher's own. If its token ids differ, `cross_tokenizer` must say how to compare, and
            the batches must be text.
        optimizer: None for AdamW with weight decay on matrices only, whose rate follows `lr_scheduler_type`.
        scheduler: of the given optimizer, stepped after each of its steps; None keeps that optimizer's rate.
    """

    student: nn.Module
    teacher: nn.Module | TeacherSource
    tokenizer: Any = None
    teacher_tokenizer: Any = None
    optimizer: Optimizer | None = None
    scheduler: LRScheduler | None = None

    def collate(self, *, max_length: int, tell: Tell) -> Callable[[Any], Batch]:
        """`to_batch` with these tokenizers: any usual form of batch, on the CPU, as a `Batch`; `tell` gets notices."""
        return partial(
            to_batch,
            tokenizer=self.tokenizer,
            teacher_tokenizer=self.teacher_tokenizer,
            max_length=max_length,
            tell=tell,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Training and validation batches, of any form that `to_batch` takes.

    Attributes:
        train: a DataLoader or any iterable; iterated once an epoch.
        validation: measured after each epoch by the main process, never learned from.
        names: of the training data, for the student's model card.
    """

    train: Iterable[Any]
    validation: Iterable[Any] | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Keeping:
    """The checkpoints of a run, and the additional states in them.

    Attributes:
        checkpoints: writes them, and knows the one to resume from; SIGTERM and Ctrl-C then save before they stop.
        parts: further states of a checkpoint, by name: the lesson's statistics, the length of the record.
    """

    checkpoints: Checkpoints | None = None
    parts: Mapping[str, Stateful] = field(default_factory=dict)

    def last_good(self) -> str | None:
        """For error messages: step and path of the newest intact checkpoint, or None."""
        return self.checkpoints.last_good() if self.checkpoints is not None else None

    def branch(self) -> Branch | None:
        """Where the run comes from if it is a branch; known once it was compared with its parent's checkpoint."""
        return self.checkpoints.branch if self.checkpoints is not None else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Watching:
    """The audience of a run's events, and what it is shown.

    Attributes:
        audience: gets every event; nothing it does affects the training.
        shows_cards: read a card from every `sample_frequency`-th batch.
        takes_readings: read both models on fixed rows: at the start, at each epoch's end and at set steps.
        holds_exams: without prompts in the settings, hold exams (both models continue them) on beginnings of the data.
        asked: reads the questions asked from outside so far, which exams answer too; None: none can be asked.
        notices: emitted once, right after the run has started.
    """

    audience: Audience
    shows_cards: bool = True
    takes_readings: bool = False
    holds_exams: bool = False
    asked: Callable[[], Sequence[str]] | None = None
    notices: Iterable[KeyedNotice] = ()
