"""The scorer: adds the lesson's judgement to events: observations become cards, epochs get report cards.

Events in, events out. Knows nothing of tensors or screens.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from statistics import fmean
from typing import Any

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import Observation, Reading, ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, RunFinished, RunStarted, StepDone
from apt_model.events.results import Validation
from apt_model.events.sinks import Guard
from apt_model.i18n import Phrases
from apt_model.teaching.advice import direction
from apt_model.teaching.comments import fitting, grade
from apt_model.teaching.course import summary_of
from apt_model.teaching.laziness import SCALE, laziness, light
from apt_model.teaching.similarity import Similarity, text_similarity, token_similarity
from apt_model.teaching.summary import ReportCard, RunStatistics
from apt_model.teaching.topics import TopicKeywords, detect_topic

MAX_CHARACTERS = 1_000  # of a sample, on its card
PARROT = 0.5  # of a card's tokens, each the same as the one before it
HEARD = 0.8  # of the characters
FOLLOWS = 0.5  # of a card's tokens, on which student and teacher agree after the true ones

Comment = Callable[[float, float], str]


class LessonScorer:
    """Adds laziness, topics, remarks, report cards and a verdict to the events of a run.

    Args:
        config: thresholds and language of the remarks.
        topics: keyword lists by topic; may be changed at any time.
        comment: `(laziness in percent, loss) -> remark`; if it raises, the built-in remark stands in.
        similarity: `(teacher text, student text) -> 0..1`.
        guard: catches a failing `comment`.
    """

    def __init__(
        self,
        config: DisplayConfig,
        topics: TopicKeywords,
        *,
        comment: Comment | None = None,
        similarity: Similarity = text_similarity,
        guard: Guard | None = None,
    ) -> None:
        self.topics = topics
        self._config, self._similarity = config, similarity
        self._language = self._phrases = Phrases.load(config.lang)
        self._run: RunStarted | None = None
        self._comment = comment or self.comment
        self._guard = guard or Guard()
        self._step = 0
        self._card: Observation | None = None  # the one that a remark is made on
        self._report_card, self.verdict = ReportCard(), RunStatistics()

    def __call__(self, event: Event) -> Event:
        """The event with the lesson's judgement; other events are returned unchanged."""
        self._step, self._card = event.step, None
        if isinstance(event, RunStarted):
            self._report_card, self.verdict = ReportCard(), RunStatistics()
            self._run = event
            self._phrases = self._language.of_run(learns_from_teacher=event.learns_from_teacher)
            return replace(event, laziness_scale=SCALE)
        if isinstance(event, StepDone):
            self.verdict.add_step(event)
        elif isinstance(event, Observation):
            return self._score(event)
        elif isinstance(event, Reading):
            return self._score_reading(event)
        elif isinstance(event, EpochFinished):
            validation = event.validation and self._score_validation(event.validation)
            event = replace(
                event, **self._report_card.fields(self.verdict.course.up_to(event.step)), validation=validation
            )
            self.verdict.epoch_laziness.append(event.mean_laziness)
            self._report_card = ReportCard()
        elif isinstance(event, RunFinished):
            return replace(event, **self.verdict.fields(self._run, event.step, self._config))
        return event

    def comment(self, laziness_percent: float, loss: float) -> str:
        """The built-in remark, of the grade that fits the light; the step chooses among its variants.

        Where the student does not learn from the teacher, the remark says how far apart they are, whatever the loss.
        A remark on a card claims no more than the card shows: see `_special` and `_as_shown`.
        """
        return self._phrases.variant(f"remarks.{self._kind(laziness_percent / 100, loss)}", self._step)

    def _kind(self, lazy: float, loss: float) -> str:
        """The remark's entry in the locales' table of remarks."""
        judged_loss = loss if self._run is None or self._run.learns_from_teacher else 0.0
        kind = self._special(self._card) or fitting(grade(lazy, judged_loss, self._config), light(lazy))
        return _as_shown(kind, self._card)

    def _special(self, card: Observation | None) -> str | None:
        """The remark of a card that is no mark: at the first step, or of a student that says nothing of its own."""
        if card is None:
            return None
        if card.step <= (1 if card.source == "train" else 0):  # a training row was read before its step's update
            return "before"
        if card.token_ids is None and not card.student_text.strip():
            return None if not card.teacher_text.strip() else "silent"
        if (card.echo or 0.0) < PARROT or card.agreement >= PARROT:
            return None
        return "parrot" if card.card_text == "predicted" or _is_heard(card) else "loop"

    def stats(self) -> dict[str, Any]:
        """Statistics of the run so far, with the guide's keys and units."""
        return dict(self.verdict.stats())

    def state_dict(self) -> dict[str, Any]:
        """The statistics of the run so far, as JSON values."""
        return {"report_card": self._report_card.state_dict(), "verdict": self.verdict.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        self._report_card.load_state_dict(state["report_card"])
        self.verdict.load_state_dict(state["verdict"])

    def _score_validation(self, seen: Validation) -> Validation:
        lazy = [
            laziness(float(self._similarity(pair.teacher_text, pair.student_text)), pair.normalised_kl)
            for pair in seen.pairs
        ]
        return replace(seen, mean_laziness=fmean(lazy) if lazy else None)

    def _score_reading(self, reading: Reading) -> Reading:
        topics = tuple(detect_topic(text, self.topics) for text in reading.texts)
        texts = tuple(text[:MAX_CHARACTERS] for text in reading.texts)
        scored = replace(reading, topics=topics, texts=texts, measured=summary_of(reading.rows))
        self.verdict.add_reading(scored)
        course = (self.verdict.unseen if reading.unseen else self.verdict.learned).up_to(reading.step)
        return replace(scored, trend=direction(course.difference(0, "laziness")))

    def _score(self, seen: Observation) -> ScoredObservation:
        if seen.token_ids is None:
            similarity = float(self._similarity(seen.teacher_text, seen.student_text))  # may be a numpy or torch scalar
        else:
            similarity = token_similarity(*seen.token_ids)
        lazy = laziness(similarity, seen.normalised_kl)
        judged = self._judged_loss(seen)
        self._card = seen
        own = self.comment(100 * lazy, judged)
        said = self._guard.run("generate_comment", lambda: str(self._comment(100 * lazy, judged)), own)
        key = self._kind(lazy, judged) if said == own else None
        card = ScoredObservation(
            **{field.name: getattr(seen, field.name) for field in fields(seen)}
            | {"input_text": seen.input_text[:MAX_CHARACTERS]},
            similarity=similarity,
            laziness=lazy,
            light=light(lazy),
            topic=detect_topic(seen.input_text, self.topics),
            remark=said,
            remark_key=key,
            remark_variant=0 if key is None else self._phrases.choice(f"remarks.{key}", self._step),
            compared="text" if seen.token_ids is None else "tokens",
            grade=fitting(grade(lazy, judged, self._config), light(lazy)),
        )
        self._report_card.add(card)
        self.verdict.add(card)
        return card

    @staticmethod
    def _judged_loss(seen: Observation) -> float:
        """What the student could still gain; the loss itself where that is not known."""
        return seen.loss if seen.gain is None else seen.gain


def _as_shown(kind: str, card: Observation | None) -> str:
    """The remark's kind, no better and no worse than what the card shows.

    Perfection has no error beside it; a student that is right about most tokens, each after the true ones, but goes
    astray when it goes on by itself, is told that and no more.
    """
    if card is None:
        return kind
    if kind == "excellent" and not _is_perfect(card):
        return "nearly"
    follows = card.card_text == "continued" and card.agreement >= FOLLOWS
    return "astray" if kind == "needs_work" and follows else kind


def _is_heard(card: Observation) -> bool:
    """Whether most of what the student says over and over stands in the beginning that it was given."""
    said = [letter for letter in card.student_text if not letter.isspace()]
    return sum(letter in card.given for letter in said) >= HEARD * len(said)


def _is_perfect(card: Observation) -> bool:
    """Whether there is no error to see on a card."""
    same = card.teacher_text == card.student_text if card.token_ids is None else len(set(card.token_ids)) == 1
    return same and card.agreement == 1
