"""The results that events carry: validation, readings of fixed rows, exam answers, laziness by topic, advice.

Frozen records of plain floats and strings, as the events themselves (`records`).
"""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["excellent", "good", "fair", "needs_work"]
Trend = Literal["great_progress", "progress", "steady", "decline", "unknown"]


@dataclass(frozen=True, kw_only=True)
class TextPair:
    """Both models' texts on a row of the validation data."""

    teacher_text: str
    student_text: str
    normalised_kl: float


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The student on validation data, in eval mode.

    Attributes:
        loss, kd, ce: as in `StepDone`, over all of the validation data.
        agreement: share of its tokens on which both models' most probable tokens agree.
        tokens: positions measured.
        pairs: both models' texts on at most 16 rows.
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
class RowReading:
    """Both models on one of the fixed rows of a run, at temperature 1.

    Attributes:
        tokens: its positions with a label; the other fields are means over them.
        kl: KL(teacher ‖ student), in nats.
        normalised_kl: of 1 - exp(-KL), 0..1.
        agreement: share on which both models' most probable tokens agree.
        ce, teacher_ce: cross-entropy of each model on the labels, in nats; the teacher's is None where unknown.
        echo: share on which the student's most probable token repeats the token before it.
    """

    tokens: int
    kl: float
    normalised_kl: float
    agreement: float
    ce: float
    teacher_ce: float | None
    echo: float


@dataclass(frozen=True, kw_only=True)
class MeanEstimate:
    """A mean over fixed rows, with the standard error over rows; the error is None below two rows.

    The error is widened for few rows, as Student's t asks: value ± 1.96 errors is a 95 % interval.
    """

    value: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class ReadingSummary:
    """Summary of a reading of the fixed rows: means over their tokens.

    Attributes:
        rows, tokens: how many were read.
        agreement, kl, ce: as in `RowReading`; perplexity is exp(ce).
        laziness: laziness of the tokens: `similarity_weight · (1 − agreement) + kl_weight · normalised KL`, 0..1.
        teacher_ce: None where unknown.
    """

    rows: int
    tokens: int
    agreement: MeanEstimate
    kl: MeanEstimate
    ce: MeanEstimate
    laziness: MeanEstimate
    teacher_ce: MeanEstimate | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """The paired change of laziness on the fixed rows between two readings: later less earlier, below 0 is progress.

    Attributes:
        since: step of the earlier reading.
        laziness: mean and standard error of the rows' differences.
    """

    since: int
    laziness: MeanEstimate


@dataclass(frozen=True, kw_only=True)
class ExamAnswer:
    """Both models' greedy completions of a prompt, without the prompt.

    Attributes:
        teacher: None for a cached teacher.
        asked: the prompt was asked from the page while the run went on.
    """

    prompt: str
    teacher: str | None
    student: str
    asked: bool = False


@dataclass(frozen=True, kw_only=True)
class TopicScore:
    """A topic's number of cards and their mean laziness, and how the student masters it on the fixed rows.

    Attributes:
        mean_laziness: None where no card had the topic.
        rows: fixed rows of the topic.
        mastery: agreement with the teacher on them; None without any.
    """

    topic: str
    samples: int
    mean_laziness: float | None
    rows: int = 0
    mastery: MeanEstimate | None = None


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice: a key of the locale's `advice` table, with what it mentions.

    Attributes:
        topic: a topic.
        share: a measured ratio.
        setting, value: a setting, and the value to try.
    """

    key: str
    topic: str | None = None
    share: float | None = None
    setting: str | None = None
    value: str | None = None
