"""Laziness (偷懒程度): the distance between student and teacher on a card, 0 to 1, and its traffic light.

Knows two numbers; knows nothing of texts, tensors or cards.
"""

import math

from apt_model.events.laziness import LazinessScale, Light

SCALE = LazinessScale()


def laziness(similarity: float, normalised_kl: float) -> float:
    """The weighted sum of `1 - similarity` and `normalised_kl` that `LazinessScale` describes, kept within 0..1.

    A NaN part counts as the laziest value: what cannot be measured was not learned.

    Args:
        similarity: of the two texts, 0..1.
        normalised_kl: mean over the tokens of 1 - exp(-KL(teacher ‖ student)) at temperature 1, 0..1.
    """
    distance = 1.0 if math.isnan(similarity) else 1.0 - min(max(similarity, 0.0), 1.0)
    divergence = 1.0 if math.isnan(normalised_kl) else min(max(normalised_kl, 0.0), 1.0)
    return SCALE.similarity_weight * distance + SCALE.kl_weight * divergence


def light(laziness: float) -> Light:
    """Green below the scale's first bound, yellow below its second, red from there."""
    if laziness < SCALE.green_below:
        return "green"
    return "yellow" if laziness < SCALE.yellow_below else "red"
