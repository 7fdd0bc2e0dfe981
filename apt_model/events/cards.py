"""The events that compare teacher and student: the observation of a row (a card), and the reading of the fixed rows.

Knows nothing of tensors or of how they are shown.
"""

from dataclasses import dataclass
from typing import Literal

from apt_model.events.event import Event
from apt_model.events.laziness import Light
from apt_model.events.results import Grade, ReadingSummary, RowReading, Trend
from apt_model.events.tokens import TokenDetail

Source = Literal["train", "validation", "probe"]
CardText = Literal["continued", "predicted"]
Compared = Literal["text", "tokens"]


@dataclass(frozen=True, kw_only=True)
class Observation(Event):
    """The predictions of teacher and student on one row of a batch.

    Attributes:
        source: "train": a row of the step's own batch, read from the logits that it trained on; "validation": a row of
            the validation data; "probe": a fixed row, in another trainer's run. The last two are read after the step.
        loss: of the step; for the other sources the weighted KD and CE of the validation batch or of the fixed row.
        given: the text before the compared part, which both models were given.
        teacher_text: the teacher's most probable tokens, or what it went on with, decoded, without pieces of
            characters; a blank one is empty.
        student_text: the student's.
        input_text: the sample's own text, whole, since its topic is found in it; a scored card keeps the beginning.
        normalised_kl: mean over the card's tokens of 1 - exp(-KL(teacher ‖ student)) at temperature 1; 0..1.
        agreement: share of the card's tokens on which both models' most probable tokens agree.
        tokens: how many tokens the card has: those of the sample's own text that the numbers are means over, and that
            predicted texts were decoded from.
        detail: the same token by token; None if it is not recorded, or the tokenizer cannot decode single tokens.
        entropy_gap: mean over the card's tokens of the student's entropy minus the teacher's, in nats, at temperature
            1; None if the teacher's is unknown.
        kd_pull, ce_pull: mean over the card's tokens of the norm of each weighted term's gradient with respect to the
            student's logits; None if the step did not compute it (no fused loss, not a training row).
        softness: mean over the card's tokens of the teacher's entropy at the training temperature, divided by its
            maximum, the log of the vocabulary size; None as above, and for a teacher's top-k logits.
        card_text: "continued": both texts are continuations that the models wrote after `given`; "predicted": each of
            their tokens is the best guess after the true ones.
        original: the sample's own text after `given`, as far as it is compared; empty for text that the student wrote.
        gain: what the student could still gain on the card's tokens, `alpha · KD + beta · (CE − the teacher's CE)`;
            None where the teacher's CE is unknown.
        echo: share of the card's tokens on which the student repeats the token before it; of a continuation's tokens
            also, if that is more, the share that says the last given tokens over and over.
        token_ids: the teacher's and the student's ids, only where the tokenizer gives no text to compare.
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
    card_text: CardText = "predicted"
    original: str = ""
    gain: float | None = None
    echo: float | None = None
    token_ids: tuple[tuple[int, ...], tuple[int, ...]] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredObservation(Observation):
    """An observation with the lesson's judgement: what a card shows.

    Attributes:
        compared: what the similarity was computed on, the texts or the token ids.
        grade: gives both `light` and `remark`; None in records from before there were grades.
        remark: as the lesson's language says it.
        remark_key, remark_variant: the same in every language: an entry of the locales' table `remarks`, and which of
            its sentences; None for a remark of a user's own, and in records from before there were keys.
    """

    kind = "card"

    similarity: float
    laziness: float
    light: Light
    topic: str
    remark: str
    compared: Compared = "text"
    grade: Grade | None = None
    remark_key: str | None = None
    remark_variant: int = 0


@dataclass(frozen=True, kw_only=True)
class Reading(Event):
    """Both models on the run's fixed rows after this step; epoch 0 is before the first step.

    Attributes:
        unseen: the rows are validation data, which nobody learns from; False: they are training data.
        rows: in the same order in every reading of the run.
        texts: the rows' own texts, in the first reading only: whole until the scorer has found their topics.
        seconds: what the reading cost.
        topics: of the rows, in the first reading only; filled in by the scorer, as `measured` is.
        trend: direction of the change of laziness since the run's first reading of these rows; filled in by the scorer.
    """

    kind = "reading"

    epoch: int
    unseen: bool
    rows: tuple[RowReading, ...]
    texts: tuple[str, ...] = ()
    seconds: float = 0.0
    topics: tuple[str, ...] = ()
    measured: ReadingSummary | None = None
    trend: Trend | None = None
