"""Base class of the visual plugin and callback: topics, statistics and remarks, as attributes that users change.

Knows the scorer; knows nothing of who trains.
"""

from typing import Any

from apt_model.config.sections import DisplayConfig
from apt_model.events.sinks import Guard
from apt_model.teaching.scorer import LessonScorer
from apt_model.teaching.similarity import Similarity
from apt_model.teaching.topics import TopicKeywords, default_topics


class Classroom:
    """Holds the scorer of a lesson, with attributes to customise it.

    Args:
        display: thresholds and language of the remarks.
        similarity: `(teacher text, student text) -> 0..1`.
    """

    def __init__(self, display: DisplayConfig, *, similarity: Similarity) -> None:
        self._guard = Guard()
        self._scorer = LessonScorer(
            display,
            default_topics(),
            comment=lambda laziness_percent, loss: self.generate_comment(laziness_percent, loss),
            similarity=similarity,
            guard=self._guard,
        )

    @property
    def topic_keywords(self) -> TopicKeywords:
        """Keywords by topic; changes take effect from the next card on."""
        return self._scorer.topics

    @topic_keywords.setter
    def topic_keywords(self, topics: TopicKeywords) -> None:
        self._scorer.topics = topics

    @property
    def stats(self) -> dict[str, Any]:
        """Statistics of the lesson so far; zeros and empty before the first card."""
        return self._scorer.stats()

    def generate_comment(self, laziness_percent: float, loss: float) -> str:
        """The remark on a card. Override it, in a subclass or on the instance, for remarks of your own."""
        return self._scorer.comment(laziness_percent, loss)
