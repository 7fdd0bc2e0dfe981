"""Loss spike detection: a notice when the loss jumps far out of its recent range.

Knows steps and their losses; knows nothing of tensors, or of where a notice is shown. After a notice there is none
for 50 steps: by then the loss has recovered, or its new range is the recent one.
"""

from collections import deque
from collections.abc import Mapping
from math import isfinite
from statistics import median, quantiles
from typing import Any

from apt_model.events.event import Event
from apt_model.events.records import Notice, RunStarted, StepDone

WINDOW = 50  # steps of the recent range
LEAST = 20  # steps before the first judgement
FAR = 8.0  # deviations above the median
CLEARLY = 1.5  # times the median as well: for a nearly constant loss, any change is many deviations
QUIET = 50  # steps without another notice
PER_SIGMA = 1.4826, 1.2816  # of a normal distribution: 1 / its median absolute deviation, its ninth decile


class SpikeWatch:
    """Watches a run's losses: called with each event, returns a notice if the loss has jumped.

    A loss has jumped if it lies above `median + 8 · sigma` and above 1.5 times the median of the last 50. `sigma` is
    the larger of two robust estimates, the median absolute deviation and the distance from the median to the ninth
    decile, so that noise skewed upwards raises no false alarm; outliers among the 50, fewer than a tenth, move
    neither. Losses that are not finite are left out: the loop reports them itself. So are on-policy steps, whose loss
    has no cross-entropy and cannot be compared with the others.
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._told: int | None = None

    def __call__(self, event: Event) -> Notice | None:
        """A notice if the event is a step whose loss has jumped, else None."""
        if isinstance(event, RunStarted):
            self._losses.clear()
            self._told = None
        if not isinstance(event, StepDone) or event.is_on_policy or not isfinite(event.loss):
            return None
        usual = self._usual_if_jumped(event.loss)
        self._losses.append(event.loss)
        if usual is None or (self._told is not None and event.step - self._told < QUIET):
            return None
        self._told = event.step
        values = {"step": event.step, "loss": round(event.loss, 4), "usual": round(usual, 4)}
        return Notice(run_id=event.run_id, step=event.step, key="notice.spike", values=values)

    def _usual_if_jumped(self, loss: float) -> float | None:
        """The median of the recent losses if this loss lies far above them, else None."""
        if len(self._losses) < LEAST:
            return None
        usual = median(self._losses)
        if loss <= CLEARLY * usual:
            return None
        deviation = median(abs(one - usual) for one in self._losses) * PER_SIGMA[0]
        upwards = (quantiles(self._losses, n=10)[-1] - usual) / PER_SIGMA[1]
        return usual if loss > usual + FAR * max(deviation, upwards) else None

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"losses": list(self._losses), "told": self._told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        self._losses = deque(state["losses"], maxlen=WINDOW)
        self._told = state["told"]
