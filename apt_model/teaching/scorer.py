"""The scorer: adds the lesson's judgement to events: observations become cards, epochs get report cards.

Events in, events out. Knows nothing of tensors or screens.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from statistics import fmean
from typing import Any

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import Observation, ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, RunFinished, RunStarted, StepDone
from apt_model.events.results import Validation
from apt_model.events.sinks import Guard
from apt_model.i18n import Phrases
from apt_model.teaching.advice import advice_for
from apt_model.teaching.comments import grade, remark
from apt_model.teaching.laziness import SCALE, laziness, light
from apt_model.teaching.similarity import Similarity, text_similarity
from apt_model.teaching.summary import ReportCard, RunStatistics, Weights
from apt_model.teaching.topics import TopicKeywords, detect_topic

MAX_CHARACTERS = 1_000  # of a sample, on its card

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
        self._report_card, self.verdict, self._weights = ReportCard(), RunStatistics(), Weights()

    def __call__(self, event: Event) -> Event:
        """The event with the lesson's judgement; other events are returned unchanged."""
        self._step = event.step
        if isinstance(event, RunStarted):
            self._report_card, self.verdict = ReportCard(), RunStatistics()
            self._weights = Weights.of(event.config)
            self._run = event
            self._phrases = self._language.of_run(learns_from_teacher=event.learns_from_teacher)
            return replace(event, laziness_scale=SCALE)
        if isinstance(event, StepDone):
            self._report_card.add_step(event, self._weights)
        elif isinstance(event, Observation):
            return self._score(event)
        elif isinstance(event, EpochFinished):
            validation = event.validation and self._score_validation(event.validation)
            event = replace(event, **self._report_card.fields(), validation=validation)
            self.verdict.add_epoch(event, self._report_card.loss)
            self._report_card = ReportCard()
        elif isinstance(event, RunFinished):
            verdict = replace(event, **self.verdict.fields(self._weights))
            return verdict if self._run is None else replace(verdict, advice=advice_for(self._run, verdict.advice))
        return event

    def comment(self, laziness_percent: float, loss: float) -> str:
        """The built-in remark; the step chooses among its variants.

        Where the student does not learn from the teacher, the remark says how far apart they are, whatever the loss.
        """
        judged_loss = loss if self._run is None or self._run.learns_from_teacher else 0.0
        return remark(grade(laziness_percent / 100, judged_loss, self._config), self._phrases, turn=self._step)

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

    def _score(self, seen: Observation) -> ScoredObservation:
        similarity = float(self._similarity(seen.teacher_text, seen.student_text))  # may be a numpy or torch scalar
        lazy = laziness(similarity, seen.normalised_kl)
        percent = 100 * lazy
        card = ScoredObservation(
            **{field.name: getattr(seen, field.name) for field in fields(seen)}
            | {"input_text": seen.input_text[:MAX_CHARACTERS]},
            similarity=similarity,
            laziness=lazy,
            light=light(lazy),
            topic=detect_topic(seen.input_text, self.topics),
            remark=self._guard.run(
                "generate_comment", lambda: str(self._comment(percent, seen.loss)), self.comment(percent, seen.loss)
            ),
        )
        self._report_card.add(card)
        self.verdict.add(card)
        return card
