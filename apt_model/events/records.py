"""The events of a run: frozen records of plain floats and strings, one class per kind.

Knows nothing of tensors, sinks or display. The training loop fills in what it measured; the scorer (apt_model.teaching)
fills in the lesson's judgement, which keeps its default (None, 0 or empty) in a run without a scorer. Ratios are 0..1;
percent exists only where something is shown.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from apt_model.events.laziness import LazinessScale, Light
from apt_model.events.results import Advice, ExamAnswer, TopicScore, Validation
from apt_model.events.tokens import TokenDetail
from apt_model.events.verdict_line import VerdictLine

SCHEMA_VERSION = 1

Source = Literal["train", "validation", "probe"]
Trend = Literal["great_progress", "progress", "steady", "decline", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        run_id: the run it belongs to.
        step: optimizer steps done so far in the run.
        wall_time: seconds since the Unix epoch.
    """

    kind: ClassVar[str]

    run_id: str
    step: int
    wall_time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model's name and size; `layers` and `hidden_size` are None if it has no config that tells them."""

    name: str
    parameters: int
    megabytes: float
    layers: int | None = None
    hidden_size: int | None = None


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
        loss: what was backpropagated: `alpha * kd + beta * ce`, plus the weighted `hidden` and `attention` terms.
        kd: T² times the mean KL(teacher ‖ student) at temperature T, in nats, unweighted.
        ce: the mean cross-entropy on the labels at temperature 1, in nats, unweighted; None on an on-policy step, whose
            loss has no such term.
        grad_norm: before clipping.
        tokens: positions with a label in the step, over all processes.
        step_seconds: wall seconds since the previous step, data loading included.
        skipped_batches: batches without any label so far.
        hidden: mean 1 - cosine between both models' hidden states, unweighted; None without this term.
        attention: mean KL between both models' attention relations, in nats, unweighted; None without this term.
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

    @property
    def is_on_policy(self) -> bool:
        """Whether the step trained on text that the student generated."""
        return self.kd is not None and self.ce is None


@dataclass(frozen=True, kw_only=True)
class Observation(Event):
    """The predictions of teacher and student on one row of a batch.

    Attributes:
        source: "train": a row of the step's own batch, read from the logits that it trained on; "validation": a row of
            the validation data; "probe": a fixed row, in another trainer's run. The last two are read after the step.
        loss: of the step; for the other sources the weighted KD and CE of the validation batch or of the fixed row.
        given: the text before the compared part, which both models were given.
        teacher_text: the teacher's most probable tokens, decoded.
        student_text: the student's.
        input_text: the sample's own text, whole, since its topic is found in it; a scored card keeps the beginning.
        normalised_kl: mean over the card's tokens of 1 - exp(-KL(teacher ‖ student)) at temperature 1; 0..1.
        agreement: share of the card's tokens on which both models' most probable tokens agree.
        tokens: how many tokens the texts were decoded from.
        detail: the same token by token; None if it is not recorded, or the tokenizer cannot decode single tokens.
        entropy_gap: mean over the card's tokens of the student's entropy minus the teacher's, in nats, at temperature
            1; None if the teacher's is unknown.
        kd_pull, ce_pull: mean over the card's tokens of the norm of each weighted term's gradient with respect to the
            student's logits; None if the step did not compute it (no fused loss, not a training row).
        softness: mean over the card's tokens of the teacher's entropy at the training temperature, divided by its
            maximum, the log of the vocabulary size; None as above, and for a teacher's top-k logits.
    """

    kind = "observation"

    epoch: int
    batch: int
    loss: float
    given: str
    teacher_text: str
    student_text: str
    input_text: str
    normalised_kl: float
    agreement: float
    tokens: int
    source: Source = "train"
    detail: TokenDetail | None = None
    entropy_gap: float | None = None
    kd_pull: float | None = None
    ce_pull: float | None = None
    softness: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredObservation(Observation):
    """An observation with the lesson's judgement: what a card shows."""

    kind = "card"

    similarity: float
    laziness: float
    light: Light
    topic: str
    remark: str


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
        advice: the most important first.
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
        ExamTaken,
        EpochFinished,
        RunFinished,
        Notice,
    )
}
