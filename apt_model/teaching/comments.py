"""The mark on a card: one grade, from laziness and what could still be gained, gives its light and its remark.

Knows numbers; knows nothing of sentences, or of where a card comes from.
"""

from apt_model.config.sections import DisplayConfig
from apt_model.events.laziness import Light
from apt_model.events.results import Grade

GRADES: tuple[Grade, ...] = ("excellent", "good", "fair", "needs_work")
FITTING: dict[Light, tuple[Grade, ...]] = {"green": GRADES[:2], "yellow": GRADES[1:3], "red": GRADES[3:]}


def grade(laziness: float, loss: float, thresholds: DisplayConfig) -> Grade:
    """The best grade with both thresholds above (laziness, loss); "needs_work" for a NaN loss."""
    if laziness < thresholds.excellent[0] and loss < thresholds.excellent[1]:
        return "excellent"
    if laziness < thresholds.good[0] and loss < thresholds.good[1]:
        return "good"
    if laziness < thresholds.fair[0] and loss < thresholds.fair[1]:
        return "fair"
    return "needs_work"


def fitting(found: Grade, light: Light) -> Grade:
    """The grade nearest to `found` that does not contradict the light: no praise under red, no scolding under green."""
    allowed = FITTING[light]
    return min(allowed, key=lambda one: abs(GRADES.index(one) - GRADES.index(found)))
