"""Laziness (偷懒程度): the distance between student and teacher on a card, 0 to 1, and its traffic light.

Knows two numbers; knows nothing of texts, tensors or cards.
"""

import math

from apt_model.events.records import Light

SIMILARITY_WEIGHT, KL_WEIGHT = 0.6, 0.4
GREEN_BELOW, YELLOW_BELOW = 0.3, 0.6


def laziness(similarity: float, normalised_kl: float) -> float:
    """`0.6 * (1 - similarity) + 0.4 * normalised_kl`, kept within 0..1.

    A NaN part counts as the laziest value: what cannot be measured was not learned.

    Args:
        similarity: of the two texts, 0..1.
        normalised_kl: mean over the tokens of 1 - exp(-KL(teacher ‖ student)) at temperature 1, 0..1.
    """
    distance = 1.0 if math.isnan(similarity) else 1.0 - min(max(similarity, 0.0), 1.0)
    divergence = 1.0 if math.isnan(normalised_kl) else min(max(normalised_kl, 0.0), 1.0)
    return SIMILARITY_WEIGHT * distance + KL_WEIGHT * divergence


def light(laziness: float) -> Light:
    """Green below 30 %, yellow below 60 %, red from 60 %."""
    if laziness < GREEN_BELOW:
        return "green"
    return "yellow" if laziness < YELLOW_BELOW else "red"
