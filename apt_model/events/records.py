"""The events of a run: frozen records of plain floats and strings, one class per kind.

Knows nothing of tensors, sinks or display. The training loop fills in what it measured; the scorer (apt_model.teaching)
fills in the lesson's judgement, which keeps its default (None, 0 or empty) in a run without a scorer. Ratios are 0..1;
percent exists only where something is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apt_model.events.cards import Observation, Reading, ScoredObservation
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.results import (
    Advice,
    Change,
    ExamAnswer,
    Grade,
    ReadingSummary,
    TopicScore,
    Trend,
    Validation,
)
from apt_model.events.verdict_line import VerdictLine

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model's name and size; `layers` and `hidden_size` are None if it has no config that tells them.

    `parameters` is 0 of a teacher that only a server has, without a config.
    """

    name: str
    parameters: int
    megabytes: float
    layers: int | None = None
    hidden_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChangedSetting:
    """A setting of a branch with its value in the run that it left, and its own."""

    setting: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Where a run comes from that went on from another run's checkpoint.

    Attributes:
        run: name of the parent's run directory.
        run_id: the parent's.
        step: of the checkpoint: up to here the branch's record is the parent's.
        changed: settings that can change the student; empty in a branch that repeats its parent.
    """

    run: str
    run_id: str
    step: int
    changed: tuple[ChangedSetting, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A run begins.

    Attributes:
        config: all settings as flat keys; in another trainer's run, only those that are ours.
        total_steps: None if the data has no length.
        trained_by: class of another trainer's settings ("SFTConfig"); None in our own training loop.
        learns_from_teacher: False in another trainer's run that only compares the student with the teacher.
        vocabulary: number of tokens that both models share; None if unknown.
        laziness_scale: constants of the laziness of its cards; filled in by the scorer.
        branch: None unless it went on from another run's checkpoint.
    """

    kind = "run_started"

    teacher: ModelCard
    student: ModelCard
    config: Mapping[str, Any]
    num_epochs: int
    total_steps: int | None
    device: str
    trained_by: str | None = None
    learns_from_teacher: bool = True
    vocabulary: int | None = None
    laziness_scale: LazinessScale | None = None
    branch: Branch | None = None


@dataclass(frozen=True, kw_only=True)
class EpochStarted(Event):
    """An epoch begins; epochs count from 1."""

    kind = "epoch_started"

    epoch: int
    num_epochs: int


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """One optimizer step; in another trainer's run, one of its log entries.

    Another trainer's loss is its own, averaged over the steps since its last log entry. What it does not log is None.

    Attributes:
        batch: index in the epoch, from 0, of the step's last batch.
        loss: what was backpropagated: `alpha * kd + beta * ce`, plus the weighted `hidden`, `attention` and `router`
            terms.
        kd: T² times the mean KL(teacher ‖ student) at temperature T, in nats, unweighted.
        ce: the mean cross-entropy on the labels at temperature 1, in nats, unweighted; None on an on-policy step, whose
            loss has no such term.
        grad_norm: before clipping.
        tokens: positions with a label in the step, over all processes.
        step_seconds: wall seconds since the previous step, data loading included.
        skipped_batches: batches without any label so far.
        hidden: mean 1 - cosine between both models' hidden states, unweighted; None without this term.
        attention: mean KL between both models' attention relations, in nats, unweighted; None without this term.
        router: the load-balancing loss of the student's experts, unweighted; None without this term.
    """

    kind = "step"

    epoch: int
    batch: int
    loss: float
    kd: float | None
    ce: float | None
    learning_rate: float
    grad_norm: float | None
    tokens: int | None
    step_seconds: float
    skipped_batches: int
    hidden: float | None = None
    attention: float | None = None
    router: float | None = None

    @property
    def is_on_policy(self) -> bool:
        """Whether the step trained on text that the student generated."""
        return self.kd is not None and self.ce is None


@dataclass(frozen=True, kw_only=True)
class ExamTaken(Event):
    """An exam: both models completed the run's exam prompts after this step. Epoch 0 is before the first step."""

    kind = "exam"

    epoch: int
    answers: tuple[ExamAnswer, ...]


@dataclass(frozen=True, kw_only=True)
class EpochFinished(Event):
    """An epoch ends. `mean_loss` is the mean over its tokens; `topics` holds the five with the most samples.

    In another trainer's run `mean_loss` is the mean of what it logged, and `tokens` is None if it does not count them.
    """

    kind = "epoch_finished"

    epoch: int
    num_epochs: int
    mean_loss: float | None
    tokens: int | None
    skipped_batches: int
    seconds: float
    samples: int = 0
    mean_laziness: float | None = None
    topics: tuple[TopicScore, ...] = ()
    validation: Validation | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class RunFinished(VerdictLine, Event):
    """The run ends: its summary and verdict.

    Attributes:
        tokens: positions trained on; in another trainer's run the tokens that it has logged, or None.
        first_loss, last_loss: mean loss of the first and the last tenth of the steps seen (at least one).
        samples, mean_laziness: cards scored, and the mean over all of them.
        first_laziness, last_laziness: mean of the first and the last quarter of the cards.
        topics: every topic seen (at most 64).
        validation: of the last epoch, without its texts; None without validation data.
        advice: at most two pieces, the most important first.
        unseen, learned: the last reading of each kind of fixed rows; None without any.
        change: on the unseen rows (the learned ones without any), from the first reading to the last.
        grade: of the student at the end; None if nothing was measured.
        failures: errors of the display, one line each; training went on without it.
    """

    kind = "run_finished"

    epochs: int
    tokens: int | None
    skipped_batches: int
    seconds: float
    first_loss: float | None
    last_loss: float | None
    samples: int = 0
    mean_laziness: float | None = None
    first_laziness: float | None = None
    last_laziness: float | None = None
    trend: Trend = "unknown"
    topics: tuple[TopicScore, ...] = ()
    validation: Validation | None = None
    advice: tuple[Advice, ...] = ()
    unseen: ReadingSummary | None = None
    learned: ReadingSummary | None = None
    change: Change | None = None
    grade: Grade | None = None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """A message to the user: `key` names a sentence of the locale, `values` fill its placeholders."""

    kind = "notice"

    key: str
    values: Mapping[str, str | int | float] = field(default_factory=dict)


KINDS: Mapping[str, type[Event]] = {
    kind.kind: kind
    for kind in (
        RunStarted,
        EpochStarted,
        StepDone,
        Observation,
        ScoredObservation,
        Reading,
        ExamTaken,
        EpochFinished,
        RunFinished,
        Notice,
    )
}
