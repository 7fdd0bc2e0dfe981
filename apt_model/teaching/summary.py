"""Statistics of an epoch (report card) and of a run (verdict), in bounded memory.

Knows cards, readings and steps; knows nothing of words or screens.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import Reading, ScoredObservation
from apt_model.events.records import RunStarted, StepDone
from apt_model.events.results import TopicScore
from apt_model.events.series import BoundedSeries
from apt_model.teaching.advice import Evidence, advice, direction, final_grade
from apt_model.teaching.course import Course, judging

MAX_TOPICS = 64
TOP_TOPICS = 5


class TopicTable:
    """Samples and mean laziness per topic, for the first 64 topics seen; later ones are not counted."""

    def __init__(self) -> None:
        self._samples: dict[str, int] = {}
        self._sums: dict[str, float] = {}

    def add(self, topic: str, laziness: float) -> None:
        """Count one card."""
        if topic not in self._samples and len(self._samples) >= MAX_TOPICS:
            return
        self._samples[topic] = self._samples.get(topic, 0) + 1
        self._sums[topic] = self._sums.get(topic, 0.0) + laziness

    def scores(self, most: int = MAX_TOPICS) -> tuple[TopicScore, ...]:
        """Topics by decreasing number of samples; among equals, the first seen comes first."""
        ranked = sorted(self._samples, key=lambda topic: -self._samples[topic])
        return tuple(
            TopicScore(topic=t, samples=self._samples[t], mean_laziness=self._sums[t] / self._samples[t])
            for t in ranked[:most]
        )

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        vars(self).update({name: dict(state[name]) for name in vars(self)})


def _state(owner: Any) -> dict[str, Any]:
    """The fields of a collector as JSON values, those of the collectors inside it too."""
    return {name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in vars(owner).items()}


def _load_state(owner: Any, state: Mapping[str, Any]) -> None:
    for name, value in vars(owner).items():
        if name not in state:
            continue  # saved by a version that did not measure it
        if hasattr(value, "load_state_dict"):
            value.load_state_dict(state[name])
        else:
            setattr(owner, name, state[name])


class ReportCard:
    """Collects the cards of one epoch."""

    def __init__(self) -> None:
        self._laziness = BoundedSeries()
        self._topics = TopicTable()

    def add(self, card: ScoredObservation) -> None:
        """Count one card."""
        self._laziness.add(card.laziness)
        self._topics.add(card.topic, card.laziness)

    def fields(self, course: Course) -> dict[str, Any]:
        """The fields of `EpochFinished` that come from the epoch's cards, with mastery by the newest reading."""
        return {
            "samples": self._laziness.count,
            "mean_laziness": self._laziness.mean,
            "topics": with_mastery(self._topics.scores(TOP_TOPICS), course),
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return _state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        _load_state(self, state)


class RunStatistics:
    """Collects the cards and readings of a run.

    Attributes:
        unseen, learned: the readings of both kinds of fixed rows.
    """

    def __init__(self) -> None:
        self.laziness = BoundedSeries()
        self.topics = TopicTable()
        self.unseen, self.learned = Course(), Course()
        self.epoch_laziness: list[float | None] = []
        self._share_of_teacher, self._softness = BoundedSeries(), BoundedSeries()
        self._rate = 0.0
        self._peak_rate: float | None = None

    @property
    def course(self) -> Course:
        """The readings that judge."""
        return judging(self.unseen, self.learned)

    def add(self, card: ScoredObservation) -> None:
        """Count one card."""
        self.laziness.add(card.laziness)
        self.topics.add(card.topic, card.laziness)
        if card.kd_pull is not None and card.ce_pull is not None and card.kd_pull + card.ce_pull > 0:
            self._share_of_teacher.add(card.kd_pull / (card.kd_pull + card.ce_pull))
        if card.softness is not None:
            self._softness.add(card.softness)

    def add_reading(self, reading: Reading) -> None:
        """Count one reading."""
        (self.unseen if reading.unseen else self.learned).add(reading, self._rate)

    def add_step(self, step: StepDone) -> None:
        """Count one optimizer step."""
        self._rate = step.learning_rate
        self._peak_rate = max(self._peak_rate or 0.0, step.learning_rate)

    def fields(self, run: RunStarted | None, step: int, thresholds: DisplayConfig) -> dict[str, Any]:
        """The fields of `RunFinished` that the lesson fills in."""
        first, last = self.laziness.ends(0.25) or (None, None)
        unseen, learned = self.unseen.up_to(step), self.learned.up_to(step)
        course = judging(unseen, learned)
        seen = with_mastery(self.topics.scores(), course)
        topics = (*seen, *_never_shown(course, {score.topic for score in seen}))
        found = Evidence(
            unseen=unseen,
            learned=learned,
            share_of_teacher=self._share_of_teacher.mean,
            softness=self._softness.mean,
            topics=topics,
            peak_rate=self._peak_rate,
            run=run,
            step=step,
        )
        change, grade = course.change(), final_grade(found, thresholds)
        return {
            "samples": self.laziness.count,
            "mean_laziness": self.laziness.mean,
            "first_laziness": first,
            "last_laziness": last,
            "topics": topics,
            "unseen": unseen.summary,
            "learned": learned.summary,
            "change": change,
            "trend": direction(None if change is None else change.laziness),
            "grade": grade,
            "advice": advice(found, grade),
        }

    def stats(self) -> Mapping[str, Any]:
        """The guide's `plugin.stats`: laziness in percent, 0.0 before the first card."""
        return {
            "total_samples": self.laziness.count,
            "avg_laziness": 100 * (self.laziness.mean or 0.0),
            "topic_distribution": {score.topic: score.samples for score in self.topics.scores()},
            "epoch_laziness": [100 * (laziness or 0.0) for laziness in self.epoch_laziness],
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return _state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        _load_state(self, state)


def _never_shown(course: Course, shown: Collection[str]) -> list[TopicScore]:
    """Topics of fixed rows that no card had."""
    return [
        TopicScore(topic=topic, samples=0, mean_laziness=None, rows=rows, mastery=mastery)
        for topic, (rows, mastery) in course.mastery().items()
        if topic not in shown
    ]


def with_mastery(scores: Sequence[TopicScore], course: Course) -> tuple[TopicScore, ...]:
    """The scores with the agreement on each topic's fixed rows, where there are any."""
    known = course.mastery()
    return tuple(
        replace(one, rows=known[one.topic][0], mastery=known[one.topic][1]) if one.topic in known else one
        for one in scores
    )
