"""The constants by which laziness (偷懒程度) and its light are computed. A run's record keeps those it was judged by.

Whoever shows a recorded run reads them from its `run_started`, never from here: they may have been others then.
"""

from dataclasses import dataclass
from typing import Literal

Light = Literal["green", "yellow", "red"]


@dataclass(frozen=True, kw_only=True)
class LazinessScale:
    """`laziness = similarity_weight · (1 − similarity) + kl_weight · normalised_KL`, 0..1, and where its light changes.

    Attributes:
        similarity_weight, kl_weight: of both parts; they add up to 1.
        green_below: laziness below which the light is green.
        yellow_below: below which it is yellow; from here on, it is red.
    """

    similarity_weight: float = 0.6
    kl_weight: float = 0.4
    green_below: float = 0.3
    yellow_below: float = 0.6
