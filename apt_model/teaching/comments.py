"""The remark on a card: a grade from laziness and loss, then one of its phrasings. Knows nothing of cards."""

from apt_model.config.sections import DisplayConfig
from apt_model.events.results import Grade
from apt_model.i18n import Phrases


def grade(laziness: float, loss: float, thresholds: DisplayConfig) -> Grade:
    """The best grade with both thresholds above (laziness, loss); "needs_work" for a NaN loss."""
    if laziness < thresholds.excellent[0] and loss < thresholds.excellent[1]:
        return "excellent"
    if laziness < thresholds.good[0] and loss < thresholds.good[1]:
        return "good"
    if laziness < thresholds.fair[0] and loss < thresholds.fair[1]:
        return "fair"
    return "needs_work"


def remark(grade: Grade, phrases: Phrases, *, turn: int) -> str:
    """A phrasing of the grade, chosen by `turn` (the step)."""
    return phrases.variant(f"remarks.{grade}", turn)
