"""The events of a lesson: plain floats and strings, frozen, one class a kind.

Knows nothing of tensors, of where an event goes, or of how it looks. The loop fills in what it measured; fields with
a default of None or empty are filled in by the scorer (apt_model.teaching), so a run without one leaves them so.
Ratios are 0..1; percent exists only where something is shown.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from apt_model.events.laziness import LazinessScale, Light
from apt_model.events.tokens import TokenDetail

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
    """What a model is, in numbers; `layers` and `hidden_size` where its config tells."""

    name: str
    parameters: int
    megabytes: float
    layers: int | None = None
    hidden_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A lesson begins.

    Attributes:
        config: settings of the lesson, flat keys; where another trainer trains, only those that are ours.
        total_steps: None where the data has no length.
        trained_by: what another trainer calls its settings ("SFTConfig"); None where our own loop trains.
        vocabulary: tokens that both models choose among, where that is known.
        laziness_scale: what its cards are judged by; filled in by the scorer.
    """

    kind = "run_started"

    teacher: ModelCard
    student: ModelCard
    config: Mapping[str, Any]
    num_epochs: int
    total_steps: int | None
    device: str
    trained_by: str | None = None
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
    """One optimizer step was taken; where another trainer trains, it has logged its numbers.

    Another trainer's loss is what it says: of its own making, the mean over the steps since it last logged; what it
    does not tell is None.

    Attributes:
        batch: index in the epoch, from 0, of the step's last batch.
        loss: what was backpropagated, `alpha * kd + beta * ce`, and the weighted `hidden` and `attention` where there
            are any.
        kd: T² times the mean KL(teacher ‖ student) at temperature T, in nats, unweighted.
        ce: the mean cross-entropy on the labels at temperature 1, in nats, unweighted; None on a step that learned from
            the student's own texts, where it is no part of the loss.
        grad_norm: before clipping.
        tokens: positions the step learned from, over all processes.
        step_seconds: wall seconds since the step before, data loading included.
        skipped_batches: batches without a single label so far.
        hidden: mean 1 - cosine between both models' hidden states, unweighted; None where they are not compared.
        attention: mean KL between both models' attention relations, in nats, unweighted; likewise.
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
        """Whether it learned from the student's own texts."""
        return self.kd is not None and self.ce is None


@dataclass(frozen=True, kw_only=True)
class Observation(Event):
    """What teacher and student said on one row of a batch.

    Attributes:
        source: "train", a row of the step's own batch, read from the very logits that it trained on; "validation", a
            row that the student does not learn from; "probe", a row that is kept for showing. The last two are read
            after the step.
        loss: of the step; or the same sum of KD and CE over the validation batch, or over the probe's row alone.
        given: the text that both were given before the shown part begins.
        teacher_text, student_text: the most probable tokens of each, decoded.
        input_text: the sample itself; topics are found in it too.
        normalised_kl: mean over the card's tokens of 1 - exp(-KL(teacher ‖ student)) at temperature 1; 0..1.
        agreement: share of the card's tokens on which both agree.
        tokens: how many tokens the texts were decoded from.
        detail: the same token by token; None where nobody keeps it, or the tokenizer has no text for a single token.
        entropy_gap: mean over the card's tokens of the student's entropy less the teacher's, in nats, at temperature
            1; None where the teacher's is not known.
        kd_pull, ce_pull: means over the card's tokens of the norms of the gradients by the student's logits of both
            terms, as weighted in the loss; None where the step did not make them (no fused loss, no training row).
        softness: mean over the card's tokens of the teacher's entropy at the training temperature, as a share of the
            most it can be, log of the vocabulary; None likewise, and where only its best tokens are known.
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
class ExamAnswer:
    """How both went on from a prompt, greedily, without the prompt; `teacher` is None where only its cache is there."""

    prompt: str
    teacher: str | None
    student: str


@dataclass(frozen=True, kw_only=True)
class ExamTaken(Event):
    """Both models answered the same prompts as at every exam of the run, after a step; epoch 0 is before the first."""

    kind = "exam"

    epoch: int
    answers: tuple[ExamAnswer, ...]


@dataclass(frozen=True, kw_only=True)
class TopicScore:
    """How a topic went: cards seen and their mean laziness."""

    topic: str
    samples: int
    mean_laziness: float


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice: a key of the locale's `advice` table, and the topic or the measured share it speaks of."""

    key: str
    topic: str | None = None
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class TextPair:
    """What both said on a row of the validation data."""

    teacher_text: str
    student_text: str
    normalised_kl: float


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The student on data that it does not learn from, in eval mode.

    Attributes:
        loss, kd, ce: as in `StepDone`, over all of the validation data.
        agreement: share of its tokens on which both models' most probable tokens agree.
        tokens: positions measured.
        pairs: texts of some rows, at most 16.
        mean_laziness: over the pairs; filled in by the scorer.
    """

    loss: float
    kd: float
    ce: float
    agreement: float
    tokens: int
    pairs: tuple[TextPair, ...]
    mean_laziness: float | None = None


@dataclass(frozen=True, kw_only=True)
class EpochFinished(Event):
    """An epoch ends. `mean_loss` is over its tokens; `topics` holds the five with the most samples.

    Where another trainer trains, `mean_loss` is over what it logged, and `tokens` is None if it does not count them.
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


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The lesson ends: the verdict.

    Attributes:
        tokens: learned from; where another trainer trains, as many as it says it has seen, if it says so.
        first_loss, last_loss: mean loss of the first and the last tenth of the steps seen (at least one).
        samples, mean_laziness: cards scored, and the mean over all of them.
        first_laziness, last_laziness: mean of the first and the last quarter of the cards.
        topics: every topic seen (at most 64).
        validation: of the last epoch, without its texts; None where there is no validation data.
        advice: the most important first.
        failures: what broke in the display, one line each; training went on without it.
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
    """Something the reader should know once: `key` names a sentence of the locale, `values` fill it in."""

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
