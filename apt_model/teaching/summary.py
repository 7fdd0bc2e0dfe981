"""Statistics of an epoch (report card) and of a run (verdict), in bounded memory.

Knows cards, steps and epochs; knows nothing of words or screens.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from apt_model.events.cards import ScoredObservation
from apt_model.events.records import EpochFinished, StepDone
from apt_model.events.results import TopicScore
from apt_model.events.series import BoundedSeries
from apt_model.teaching.advice import Measured, advice, trend

MAX_TOPICS = 64
TOP_TOPICS = 5


class Weights(NamedTuple):
    """Temperature and weights of the loss."""

    temperature: float = 1.0
    alpha: float = 0.0
    beta: float = 1.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Weights":
        """From flat settings; in another trainer's run, some may be missing."""
        return cls(**{name: config[name] for name in cls._fields if name in config})


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
        self._loss_sum, self._loss_tokens = 0.0, 0

    def add_step(self, step: StepDone, weights: Weights) -> None:
        """Count one step that has KD and CE, as the validation loss has; an on-policy step has no CE."""
        if step.kd is not None and step.ce is not None and step.tokens:
            self._loss_sum += (weights.alpha * step.kd + weights.beta * step.ce) * step.tokens
            self._loss_tokens += step.tokens

    @property
    def loss(self) -> float | None:
        """Mean of the weighted KD and CE over the tokens: the same terms as the validation loss."""
        return self._loss_sum / self._loss_tokens if self._loss_tokens else None

    def add(self, card: ScoredObservation) -> None:
        """Count one card."""
        self._laziness.add(card.laziness)
        self._topics.add(card.topic, card.laziness)

    def fields(self) -> dict[str, Any]:
        """The fields of `EpochFinished` that come from the epoch's cards."""
        return {
            "samples": self._laziness.count,
            "mean_laziness": self._laziness.mean,
            "topics": self._topics.scores(TOP_TOPICS),
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return _state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        _load_state(self, state)


class RunStatistics:
    """Collects the cards and epochs of a run."""

    def __init__(self) -> None:
        self.laziness = BoundedSeries()
        self.topics = TopicTable()
        self._say, self._softness = BoundedSeries(), BoundedSeries()
        self.epoch_laziness: list[float | None] = []
        self._epoch_losses: list[float] = []
        self._validation_losses: list[float] = []

    def add(self, card: ScoredObservation) -> None:
        """Count one card."""
        self.laziness.add(card.laziness)
        self.topics.add(card.topic, card.laziness)
        if card.kd_pull is not None and card.ce_pull is not None and card.kd_pull + card.ce_pull > 0:
            self._say.add(card.kd_pull / (card.kd_pull + card.ce_pull))
        if card.softness is not None:
            self._softness.add(card.softness)

    def add_epoch(self, epoch: EpochFinished, loss: float | None) -> None:
        """Count one epoch, and its mean loss as `ReportCard` computes it."""
        self.epoch_laziness.append(epoch.mean_laziness)
        loss = epoch.mean_loss if loss is None else loss
        if loss is not None:
            self._epoch_losses.append(loss)
        if epoch.validation is not None:
            self._validation_losses.append(epoch.validation.loss)

    def fields(self, weights: Weights) -> dict[str, Any]:
        """The fields of `RunFinished` that come from the run's cards."""
        quarters, halves = self.laziness.ends(0.25), self.laziness.ends(0.5)
        first, last = quarters or (None, None)
        topics = self.topics.scores()
        run = Measured(
            samples=self.laziness.count,
            first=first,
            last=last,
            before_last=2 * halves[1] - quarters[1] if quarters and halves else None,
            topics=topics,
            losses=self._epoch_losses,
            validation_losses=self._validation_losses,
            say=self._say.mean,
            softness=self._softness.mean,
            temperature=weights.temperature,
            alpha=weights.alpha,
        )
        return {
            "samples": self.laziness.count,
            "mean_laziness": self.laziness.mean,
            "first_laziness": first,
            "last_laziness": last,
            "trend": trend(first, last, samples=self.laziness.count),
            "topics": topics,
            "advice": advice(run),
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
