"""The curves of recorded runs as one CSV: the same curves, names and values as the page's charts (`curves.js`).

One row a point, so that runs of any number and length fit: run, curve, step, value, low, high. Curves that are means
over fixed rows have a 95 % interval, low to high; the others leave it empty. Ratios are 0..1, losses in nats.
Knows events; knows nothing of charts.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from apt_model.errors import StorageError
from apt_model.events.cards import Reading
from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.recorded import WholeEvents, name_of
from apt_model.events.records import RunStarted, StepDone
from apt_model.events.runfile import record_of
from apt_model.render.readings import NORMAL_95, summary_of

HEAD = ("run", "curve", "step", "value", "low", "high")
KINDS_READ = {True: "unseen", False: "learned"}


class Point(NamedTuple):
    """One point of a curve; `low` and `high` are the ends of its 95 % interval, None where it has none."""

    step: int
    value: float
    low: float | None = None
    high: float | None = None


Curves = dict[str, list[Point]]


def write_csv(runs: Sequence[Path], path: Path) -> Path:
    """Write the curves of the runs; the lines of a damaged record that are events.

    Args:
        runs: run directories.
        path: the CSV file; replaced if it exists.

    Raises:
        DataError: no line of a record is an event.
        StorageError: a record cannot be read, or the file cannot be written.
    """
    rows = [row for run in runs for row in _rows(name_of(run.absolute()), curves_of(WholeEvents(record_of(run))))]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8-sig", newline="") as file:  # with its mark a spreadsheet knows it is UTF-8
            csv.writer(file).writerows([HEAD, *rows])
    except OSError as error:
        raise StorageError(f"{path} cannot be written", got=error.strerror, fix="give another file with -o") from error
    return path


def _rows(run: str, curves: Curves) -> Iterator[tuple[object, ...]]:
    for name, points in curves.items():
        yield from ((run, name, *point) for point in points)


def curves_of(events: Iterable[Event]) -> Curves:
    """The points of every curve by its name, in the order of the page; curves without a point are left out."""
    steps: list[StepDone] = []
    cards: list[Card] = []
    readings: list[Reading] = []
    scale: LazinessScale | None = None
    for event in events:
        if isinstance(event, RunStarted):
            scale = event.laziness_scale
        elif isinstance(event, StepDone):
            steps += [event] if not steps or event.step > steps[-1].step else []  # a curve's x only grows
        elif isinstance(event, Card):
            cards.append(event)
        elif isinstance(event, Reading):
            readings.append(event)
    found = {name: _of_cards(cards, pick) for name, pick in _laziness(scale).items()}
    for unseen, kind in KINDS_READ.items():
        found |= {f"{kind}_{key}": _of_readings(readings, unseen, key) for key in ("agreement", "laziness")}
    found |= {name: _of_steps(steps, pick) for name, pick in LOSSES.items()}
    found |= {name: _of_cards(cards, pick) for name, pick in OF_CARDS.items()}
    found |= {name: _of_steps(steps, pick) for name, pick in DRIVERS.items()}
    return {name: points for name, points in found.items() if points}


PickCard = Callable[[Card], float | None]
PickStep = Callable[[StepDone], float | None]


def _speed(step: StepDone) -> float | None:
    return step.tokens / step.step_seconds if step.tokens is not None and step.step_seconds > 0 else None


def _laziness(scale: LazinessScale | None) -> Mapping[str, PickCard]:
    """Laziness and, where the record tells how it was computed, its two parts."""
    whole: dict[str, PickCard] = {"laziness": lambda card: card.laziness}
    if scale is None:
        return whole
    return whole | {
        "laziness_text": lambda card: scale.similarity_weight * (1 - card.similarity),
        "laziness_kl": lambda card: (
            scale.kl_weight * card.normalised_kl if math.isfinite(card.similarity) else None  # nothing was compared
        ),
    }


LOSSES: Mapping[str, PickStep] = {
    "loss": lambda step: step.loss,
    "kd": lambda step: step.kd,
    "ce": lambda step: step.ce,
}
OF_CARDS: Mapping[str, PickCard] = {
    "agreement": lambda card: card.agreement,
    "entropy_gap": lambda card: card.entropy_gap,
    "kd_pull": lambda card: card.kd_pull,
    "ce_pull": lambda card: card.ce_pull,
    "softness": lambda card: card.softness,
}
DRIVERS: Mapping[str, PickStep] = {
    "learning_rate": lambda step: step.learning_rate,
    "grad_norm": lambda step: step.grad_norm,
    "tokens_per_second": _speed,
}


def _of_steps(steps: Sequence[StepDone], pick: PickStep) -> list[Point]:
    values = [(step.step, pick(step)) for step in steps]
    return [Point(step, value) for step, value in values if value is not None and math.isfinite(value)]


def _of_cards(cards: Sequence[Card], pick: PickCard) -> list[Point]:
    """Several cards of one step count as their mean: a curve has one value a step."""
    by_step: dict[int, tuple[float, int]] = {}
    for card in cards:
        value = pick(card)
        if value is not None and math.isfinite(value):
            total, count = by_step.get(card.step, (0.0, 0))
            by_step[card.step] = total + value, count + 1
    return [Point(step, total / count) for step, (total, count) in by_step.items()]


def _of_readings(readings: Sequence[Reading], unseen: bool, key: str) -> list[Point]:
    """The mean of each reading; of two after the same step the last one's."""
    summaries = {reading.step: summary_of(reading) for reading in readings if reading.unseen == unseen}
    means = [(step, getattr(summary, key)) for step, summary in summaries.items() if summary is not None]
    known = [(step, mean.value, NORMAL_95 * (mean.error or 0.0)) for step, mean in means if math.isfinite(mean.value)]
    return [Point(step, value, value - far, value + far) for step, value, far in known]
