"""The course of a student on the fixed rows: paired differences between readings, with standard errors, in few numbers.

Knows readings; knows nothing of cards, of words, or of what a difference means.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from apt_model.events.cards import Reading
from apt_model.events.results import Change, MeanEstimate, ReadingSummary, RowReading
from apt_model.teaching.laziness import laziness

MOST_READINGS = 16
FEWEST_ROWS = 4  # of a topic, to say how it is mastered
NORMAL = 1.96
T_95 = (  # 97.5 % quantiles of Student's t, from 1 degree of freedom on
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
)
DIGITS = 5  # after the point: a checkpoint holds all the numbers

Signal = Literal["laziness", "kl", "ce"]


def row_laziness(row: RowReading) -> float:
    """Laziness of a row's tokens: the agreement of tokens stands for the similarity of texts."""
    return laziness(row.agreement, row.normalised_kl)


SIGNALS: Mapping[Signal, Callable[[RowReading], float]] = {
    "laziness": row_laziness,
    "kl": lambda row: row.kl,
    "ce": lambda row: row.ce,
}


def mean_estimate(values: Sequence[float], weights: Sequence[float]) -> MeanEstimate:
    """Weighted mean of rows, and its standard error over rows as of a ratio of sums; the error is None below two.

    With m = Σ w x / Σ w over n rows, error² = n / (n − 1) · Σ w² (x − m)² / (Σ w)², widened by Student's t for n − 1
    degrees of freedom over the normal's 1.96: so ± 1.96 errors are a 95 % interval for few rows too.
    Source: Cochran 1977, Sampling Techniques, section 2.11 (ratio estimator).
    """
    total, count = sum(weights), len(values)
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / total
    if count < 2:
        return MeanEstimate(value=mean, error=None)
    spread = sum((w * (x - mean)) ** 2 for w, x in zip(weights, values, strict=True))
    return MeanEstimate(value=mean, error=math.sqrt(count / (count - 1) * spread) / total * _widening(count - 1))


def _widening(freedom: int) -> float:
    """The 97.5 % quantile of Student's t over that of the normal distribution, 1.96.

    Beyond the table by the first term of Cornish and Fisher's expansion, (z³ + z) / (4 z · freedom).
    """
    if freedom <= len(T_95):
        return T_95[freedom - 1] / NORMAL
    return 1 + (NORMAL**2 + 1) / (4 * freedom)


def summary_of(rows: Sequence[RowReading]) -> ReadingSummary | None:
    """Means over the tokens of a reading; None without rows, or if a number is not finite."""
    if not rows or not all(map(_is_finite, rows)):
        return None
    weights = [row.tokens for row in rows]
    theirs = [row for row in rows if row.teacher_ce is not None and math.isfinite(row.teacher_ce)]
    return ReadingSummary(
        rows=len(rows),
        tokens=sum(weights),
        agreement=mean_estimate([row.agreement for row in rows], weights),
        kl=mean_estimate([row.kl for row in rows], weights),
        ce=mean_estimate([row.ce for row in rows], weights),
        laziness=mean_estimate([row_laziness(row) for row in rows], weights),
        teacher_ce=mean_estimate([row.teacher_ce or 0.0 for row in theirs], [row.tokens for row in theirs])
        if theirs
        else None,
    )


class Course:
    """The readings of one kind of fixed rows, unseen or learned: at most 16, when full every second is dropped.

    Attributes:
        latest: the rows of the newest reading; empty before the first.
    """

    def __init__(self) -> None:
        self.latest: tuple[RowReading, ...] = ()
        self._topics: list[str] = []
        self._weights: list[int] = []
        self._steps: list[int] = []
        self._rates: list[float] = []
        self._values: dict[Signal, list[list[float]]] = {name: [] for name in SIGNALS}

    def add(self, reading: Reading, rate: float = 0.0) -> None:
        """Count one reading, taken at this learning rate.

        One with texts, of other rows than before, begins anew; one with a number that is not finite is left out.
        """
        if reading.texts or reading.topics:
            vars(self).update(vars(Course()))
        weights = [row.tokens for row in reading.rows]
        if not weights or not all(map(_is_finite, reading.rows)) or (self._steps and weights != self._weights):
            return
        self.latest, self._weights = reading.rows, weights
        self._topics = list(reading.topics) or self._topics
        self._steps.append(reading.step)
        self._rates.append(rate)
        for name, read in SIGNALS.items():
            self._values[name].append([round(read(row), DIGITS) for row in reading.rows])
        if len(self._steps) > MOST_READINGS:
            self._keep([*range(0, len(self._steps) - 1, 2), len(self._steps) - 1])

    def _keep(self, places: Sequence[int]) -> None:
        self._steps = [self._steps[at] for at in places]
        self._rates = [self._rates[at] for at in places]
        self._values = {name: [rows[at] for at in places] for name, rows in self._values.items()}

    def up_to(self, step: int) -> "Course":
        """These readings if the newest was made after this step, else none: what came later is not known."""
        return self if self._steps and self._steps[-1] == step else Course()

    @property
    def count(self) -> int:
        """Number of readings kept."""
        return len(self._steps)

    @property
    def summary(self) -> ReadingSummary | None:
        """Means of the newest reading; None before the first."""
        return summary_of(self.latest)

    def difference(self, since: int, signal: Signal) -> MeanEstimate | None:
        """The paired difference from reading number `since` to the newest, later less earlier; None if it is that."""
        return None if since >= self.count - 1 else self._between(since, self.count - 1, signal)

    def change(self) -> Change | None:
        """The paired change of laziness from the first reading to the newest; None below two readings."""
        found = self.difference(0, "laziness")
        return None if found is None else Change(since=self._steps[0], laziness=found)

    def step_of(self, number: int) -> int:
        """The step of a reading."""
        return self._steps[number]

    def at_high_rate(self, signal: Signal) -> MeanEstimate | None:
        """The paired difference over the second half of the time at which the rate was half its peak or more.

        After that a schedule lets any student stand still. None without readings for it.
        """
        peak = max(self._rates, default=0.0)
        high = max((at for at, rate in enumerate(self._rates) if rate >= peak / 2), default=0)
        since = max((at for at in range(high) if 2 * self._steps[at] <= self._steps[high]), default=0)
        return self._between(since, high, signal) if since else None

    def _between(self, since: int, until: int, signal: Signal) -> MeanEstimate:
        earlier, later = self._values[signal][since], self._values[signal][until]
        return mean_estimate([after - before for before, after in zip(earlier, later, strict=True)], self._weights)

    def middle(self) -> int:
        """Number of the last reading within the first half of the steps read."""
        half = (self._steps[0] + self._steps[-1]) / 2 if self._steps else 0
        return max((at for at, step in enumerate(self._steps) if step <= half), default=0)

    def mean(self, number: int, signal: Signal) -> float:
        """Mean of a reading over its tokens."""
        return mean_estimate(self._values[signal][number], self._weights).value

    def best(self, signal: Signal) -> int:
        """Number of the reading with the lowest mean; 0 before the first."""
        return min(range(self.count), key=lambda number: self.mean(number, signal), default=0)

    def mastery(self) -> Mapping[str, tuple[int, MeanEstimate]]:
        """Rows of each topic, and the agreement on them in the newest reading; without topics of fewer than 4 rows."""
        found: dict[str, list[RowReading]] = {}
        for topic, row in zip(self._topics, self.latest, strict=False):
            found.setdefault(topic, []).append(row)
        return {
            topic: (len(rows), mean_estimate([row.agreement for row in rows], [row.tokens for row in rows]))
            for topic, rows in found.items()
            if len(rows) >= FEWEST_ROWS
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "latest": [vars(row) for row in self.latest],
            "topics": self._topics,
            "weights": self._weights,
            "steps": self._steps,
            "rates": self._rates,
            "values": self._values,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        self.latest = tuple(RowReading(**row) for row in state["latest"])
        self._topics, self._weights = list(state["topics"]), list(state["weights"])
        self._steps, self._rates = list(state["steps"]), list(state["rates"])
        self._values = {name: [list(rows) for rows in state["values"][name]] for name in self._values}


def judging(unseen: Course, learned: Course) -> Course:
    """The readings that judge a student: of unseen text, or of learned text where there is no other."""
    return unseen if unseen.count else learned


def _is_finite(row: RowReading) -> bool:
    """Whether a row can be counted; a teacher that rules out one of its labels has an infinite cross-entropy there."""
    known = (row.kl, row.normalised_kl, row.agreement, row.ce, row.echo)
    return row.tokens > 0 and all(map(math.isfinite, known))
