"""The report card of an epoch and the verdict of a run, in memory that does not grow with the number of cards."""

from collections.abc import Mapping, Sequence
from typing import Any

from apt_model.events.records import Advice, EpochFinished, ScoredObservation, TopicScore, Trend
from apt_model.events.series import BoundedSeries
from apt_model.teaching.laziness import GREEN_BELOW, YELLOW_BELOW

MAX_TOPICS = 64
TOP_TOPICS = 5
GREAT_FALL, FALL, RISE = 0.15, 0.03, 0.03
NOTICEABLE_RISE = 1.05  # of a loss, as a ratio
ENOUGH = 20  # cards of a topic: with fewer, when they came says more than what they were about


class TopicTable:
    """Samples and mean laziness per topic, for at most 64 topics (what comes after them is not counted apart)."""

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
        """Topics by falling number of samples, first seen first among equals."""
        ranked = sorted(self._samples, key=lambda topic: -self._samples[topic])
        return tuple(
            TopicScore(topic=t, samples=self._samples[t], mean_laziness=self._sums[t] / self._samples[t])
            for t in ranked[:most]
        )

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` kept."""
        vars(self).update({name: dict(state[name]) for name in vars(self)})


def _state(owner: Any) -> dict[str, Any]:
    """The fields of a collector as JSON values, those of the collectors inside it too."""
    return {name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in vars(owner).items()}


def _load_state(owner: Any, state: Mapping[str, Any]) -> None:
    for name, value in vars(owner).items():
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

    def fields(self) -> dict[str, Any]:
        """What the epoch's cards add to `EpochFinished`."""
        return {
            "samples": self._laziness.count,
            "mean_laziness": self._laziness.mean,
            "topics": self._topics.scores(TOP_TOPICS),
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return _state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` kept."""
        _load_state(self, state)


class Verdict:
    """Collects the cards and epochs of a run."""

    def __init__(self) -> None:
        self.laziness = BoundedSeries()
        self.topics = TopicTable()
        self.epoch_laziness: list[float | None] = []
        self._epoch_losses: list[float] = []
        self._validation_losses: list[float] = []

    def add(self, card: ScoredObservation) -> None:
        """Count one card."""
        self.laziness.add(card.laziness)
        self.topics.add(card.topic, card.laziness)

    def add_epoch(self, epoch: EpochFinished) -> None:
        """Count one epoch."""
        self.epoch_laziness.append(epoch.mean_laziness)
        if epoch.mean_loss is not None:
            self._epoch_losses.append(epoch.mean_loss)
        if epoch.validation is not None:
            self._validation_losses.append(epoch.validation.loss)

    def fields(self) -> dict[str, Any]:
        """What the run's cards add to `RunFinished`."""
        ends = self.laziness.ends(0.25)
        first, last = ends if ends else (None, None)
        topics = self.topics.scores()
        return {
            "samples": self.laziness.count,
            "mean_laziness": self.laziness.mean,
            "first_laziness": first,
            "last_laziness": last,
            "trend": trend(first, last, samples=self.laziness.count),
            "topics": topics,
            "advice": advice(
                first, last, topics=topics, losses=self._epoch_losses, validation_losses=self._validation_losses
            ),
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
        """Take up what `state_dict` kept."""
        _load_state(self, state)


def trend(first: float | None, last: float | None, *, samples: int) -> Trend:
    """How laziness went from the first quarter of the cards to the last; unknown below two cards."""
    if first is None or last is None or samples < 2:
        return "unknown"
    if first - last >= GREAT_FALL:
        return "great_progress"
    if first - last >= FALL:
        return "progress"
    return "decline" if last - first >= RISE else "steady"


def advice(
    first: float | None,
    last: float | None,
    *,
    topics: tuple[TopicScore, ...],
    losses: Sequence[float],
    validation_losses: Sequence[float] = (),
) -> tuple[Advice, ...]:
    """What to do next, from what the run measured; the most important first."""
    if first is None or last is None:
        return (Advice(key="no_samples"),)
    level = "excellent" if last < 0.2 else "good" if last < GREEN_BELOW else "fair" if last < YELLOW_BELOW else "poor"
    found = [Advice(key=level)]
    if last >= GREEN_BELOW:
        found.append(Advice(key="still_learning" if first - last >= FALL else "not_learning"))
    if len(losses) >= 2 and losses[-1] > losses[-2] * NOTICEABLE_RISE:
        found.append(Advice(key="loss_rises"))
    elif validation_losses and validation_losses[-1] > min(validation_losses) * NOTICEABLE_RISE:
        found.append(Advice(key="overfits"))
    seen_often = [score for score in topics if score.samples >= ENOUGH]
    if len(seen_often) >= 2:
        laziest = max(seen_often, key=lambda score: score.mean_laziness)
        easiest = min(seen_often, key=lambda score: score.mean_laziness)
        if laziest.mean_laziness - easiest.mean_laziness >= FALL:
            found.append(Advice(key="laziest_topic", topic=laziest.topic))
    return tuple(found)
