"""The results that events carry: validation, exam answers, laziness by topic, advice.

Frozen records of plain floats and strings, as the events themselves (`records`).
"""

from dataclasses import dataclass


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
class ExamAnswer:
    """Both models' greedy completions of a prompt, without the prompt; `teacher` is None for a cached teacher."""

    prompt: str
    teacher: str | None
    student: str


@dataclass(frozen=True, kw_only=True)
class TopicScore:
    """A topic's number of cards and their mean laziness."""

    topic: str
    samples: int
    mean_laziness: float


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice: a key of the locale's `advice` table, with the topic or measured share that it mentions."""

    key: str
    topic: str | None = None
    share: float | None = None
