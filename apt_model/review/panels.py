"""The panels of a run's plots: losses, laziness and its parts, readings, entropy, topics, validation.

Long curves are drawn as bucket means within the band of minimum and maximum. Every text passes `fonts.drawable`; lines
differ in more than colour. Knows axes to draw on; knows nothing of figures and files.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from apt_model.events.cards import Reading
from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.records import EpochFinished, RunStarted, StepDone
from apt_model.events.results import MeanEstimate
from apt_model.i18n import Phrases
from apt_model.render.palette import COLOURS, CURVES, FEW, HEAT, HEAT_INK, heat_of
from apt_model.render.readings import NORMAL_95, summary_of
from apt_model.render.sentences import topic_name
from apt_model.review.fonts import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUCKETS = 400  # points of a curve: about as many as a figure can resolve
CARD_BUCKETS = 40
MOST_TOPICS, MOST_COLUMNS = 12, 12
FAINT = 0.3  # opacity of the grid, and of single cards behind their curve
DASHES = {"solid": "-", "dashed": "--", "dotted": ":", "mixed": "-."}


@dataclass(frozen=True, kw_only=True)
class PlottedRun:
    """The events of a run that are drawn."""

    scale: LazinessScale | None
    steps: list[StepDone] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    epochs: list[EpochFinished] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[Event]) -> "PlottedRun":
        """Those of them that are drawn, by kind."""
        lesson = cls(scale=next((event.laziness_scale for event in events if isinstance(event, RunStarted)), None))
        homes: Mapping[type[Event], list[Any]] = {
            StepDone: lesson.steps,
            Card: lesson.cards,
            EpochFinished: lesson.epochs,
            Reading: lesson.readings,
        }
        for event in events:
            if type(event) in homes:
                homes[type(event)].append(event)
        return lesson

    @property
    def topics(self) -> set[str]:
        """Of its cards and fixed rows."""
        return {card.topic for card in self.cards} | {topic for reading in self.readings for topic in reading.topics}


def title_of(panel: str, lesson: PlottedRun) -> str:
    """The key of a panel's title: of topics, mastery where there are fixed rows to show it."""
    return "mastery" if panel == "topics" and _mastered(lesson.readings) else panel


def _losses(axes: "Axes", lesson: PlottedRun, say: Phrases) -> None:
    for word, key in {"total": "loss", "kd": "kd", "ce": "ce"}.items():
        numbers = [(step.step, getattr(step, key)) for step in lesson.steps]
        curve = _thinned([(x, y) for x, y in numbers if y is not None and math.isfinite(y)], BUCKETS)
        label = drawable(say("plots.total")) if word == "total" else word.upper()
        _line(axes, curve, word, label=label, band=word == "total")
    seen = [(e.step, e.validation.loss) for e in lesson.epochs if e.validation and math.isfinite(e.validation.loss)]
    if seen:
        axes.plot(*zip(*seen, strict=True), "D", color=COLOURS["gold"], label=drawable(say("plots.validation_loss")))
    axes.set(xlabel=drawable(say("plots.step")), ylabel=drawable(say("plots.nats")))
    axes.set_ylim(bottom=0)
    axes.legend()


def _laziness(axes: "Axes", lesson: PlottedRun, say: Phrases) -> None:
    """Laziness as the sum of its two parts, as the page draws it, and agreement; cards as points."""
    cards, scale = lesson.cards, lesson.scale
    tone = COLOURS[CURVES["laziness"].tone]
    axes.plot([c.step for c in cards], [100 * c.laziness for c in cards], ".", color=tone, alpha=FAINT)
    parts: dict[str, Callable[[Card], float]] = {"laziness": lambda card: card.laziness}
    if scale is not None:
        parts["text"] = lambda card: scale.similarity_weight * (1 - card.similarity)
        parts["kl"] = lambda card: scale.kl_weight * card.normalised_kl
    parts["agreement"] = lambda card: card.agreement
    for word, ratio in parts.items():
        known = [(card.step, 100 * ratio(card)) for card in cards if math.isfinite(ratio(card))]
        label = drawable(say(f"plots.{'laziness_line' if word == 'laziness' else word}"))
        _line(axes, _thinned(known, CARD_BUCKETS), word, label=label, width=2.5 if word == "laziness" else 1.2)
    axes.set(xlabel=drawable(say("plots.step")), ylabel=drawable(say("plots.percent")), ylim=(-2, 102))
    lights = [100 * scale.green_below, 100 * scale.yellow_below] if scale else []
    axes.set_yticks([0, *lights, 100])  # where the light changes
    axes.legend()


def _readings(axes: "Axes", lesson: PlottedRun, say: Phrases) -> None:
    """Agreement and laziness on the fixed rows, unseen and learned, each within its 95 % interval."""
    for unseen, key in product((True, False), ("agreement", "laziness")):
        read = [(one.step, summary_of(one)) for one in lesson.readings if one.unseen == unseen]
        means = [(step, getattr(summary, key)) for step, summary in read if summary is not None]
        curve = [_within(step, mean) for step, mean in means if math.isfinite(mean.value)]
        word = f"{'unseen' if unseen else 'learned'}_{key}"
        _line(axes, curve, word, label=drawable(say(f"plots.{word}")), band=True)
    axes.set(xlabel=drawable(say("plots.step")), ylabel=drawable(say("plots.percent")), ylim=(-2, 102))
    axes.legend()


def _within(step: int, mean: MeanEstimate) -> "_CurvePoint":
    """A mean in percent, with the ends of its interval."""
    value, reach = 100 * mean.value, 100 * NORMAL_95 * (mean.error or 0.0)
    return _CurvePoint(step, value - reach, value, value + reach)


def _entropy(axes: "Axes", lesson: PlottedRun, say: Phrases) -> None:
    gaps = [(card.step, card.entropy_gap) for card in lesson.cards if card.entropy_gap is not None]
    axes.axhline(0, color="grey", linewidth=1)
    axes.plot(*zip(*gaps, strict=True), ".", color=COLOURS[CURVES["gap"].tone], alpha=FAINT)
    _line(axes, _thinned(gaps, CARD_BUCKETS), "gap", label=drawable(say("plots.gap")))
    axes.set(xlabel=drawable(say("plots.step")), ylabel=drawable(say("plots.nats")))
    axes.legend()


class _Cell(NamedTuple):
    topic: str
    epoch: int
    percent: float
    weight: int


def _topics(axes: "Axes", lesson: PlottedRun, say: Phrases) -> None:
    """Mastery by topic and epoch on the fixed rows; of a record without readings, 1 − the laziness of its cards.

    A cell of fewer than FEW texts has its number, but no colour; where cells differ in how many they have, it says so.
    """
    read = _mastered(lesson.readings)
    cells = read or [_Cell(card.topic, card.epoch, 100 * (1 - card.laziness), 1) for card in lesson.cards]
    epochs = len({cell.epoch for cell in cells}) if read else 1  # each row is read in each of them
    counts = {topic: count // epochs for topic, count in Counter(cell.topic for cell in cells).most_common(MOST_TOPICS)}
    topics = list(counts)
    begin, last = min(cell.epoch for cell in cells), max(cell.epoch for cell in cells)
    begin = min(begin, 1)
    width = -(-(last - begin + 1) // MOST_COLUMNS)
    columns = [(first, min(first + width - 1, last)) for first in range(begin, last + 1, width)]
    seen: dict[tuple[str, int], list[_Cell]] = {}
    for cell in cells:
        seen.setdefault((cell.topic, (cell.epoch - begin) // width), []).append(cell)
    for row, topic in enumerate(topics):
        for column in range(len(columns)):
            own = seen.get((topic, column), [])
            _heat_cell(axes, (column, row), _mean(own), counts[topic] if read else len(own), says_count=not read)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(topics) - 0.5, -0.5))
    axes.set_yticks(range(len(topics)), [drawable(f"{topic_name(topic, say)} ({counts[topic]})") for topic in topics])
    names = [str(first) if first == end else f"{first}–{end}" for first, end in columns]
    axes.set_xticks(range(len(columns)), names)
    axes.set_xlabel(drawable(say("plots.epoch")))
    axes.grid(visible=False)


def _heat_cell(axes: "Axes", place: tuple[int, int], percent: float, texts: int, *, says_count: bool) -> None:
    """One cell: the colour of its fifth, unless its texts are too few, and its number."""
    from matplotlib.patches import Rectangle

    told = not math.isnan(percent)
    heat = heat_of(percent / 100) if told and texts >= FEW else None
    fill = "none" if heat is None else HEAT[heat]
    axes.add_patch(Rectangle((place[0] - 0.5, place[1] - 0.5), 1, 1, facecolor=fill, edgecolor="white"))
    said = f"{percent:.0f} ({texts})" if says_count else f"{percent:.0f}"
    ink = COLOURS["ink"] if heat is None else HEAT_INK[heat]
    axes.text(*place, said if told else "–", ha="center", va="center", color=ink)


def _mean(cells: Sequence[_Cell]) -> float:
    known = [cell for cell in cells if math.isfinite(cell.percent)]
    weight = sum(cell.weight for cell in known)
    return sum(cell.weight * cell.percent for cell in known) / weight if weight else math.nan


def _mastered(readings: Sequence[Reading]) -> list[_Cell]:
    """Agreement of each row in the last reading of each epoch: of unseen rows, or of the learned ones without any."""
    unseen = any(reading.unseen for reading in readings)
    mine = [reading for reading in readings if reading.unseen == unseen]
    topics = next((reading.topics for reading in mine if reading.topics), ())
    last = {reading.epoch: reading for reading in mine}
    return [
        _Cell(topic, epoch, 100 * row.agreement, row.tokens)
        for epoch, reading in last.items()
        for topic, row in zip(topics, reading.rows, strict=False)
    ]


def _validation(axes: "Axes", lesson: PlottedRun, say: Phrases) -> None:
    from matplotlib.ticker import MaxNLocator

    seen = [(epoch.epoch, epoch.validation) for epoch in lesson.epochs if epoch.validation is not None]
    where = [epoch for epoch, _ in seen]
    handles = []
    for key, mark in {"loss": "o", "kd": "s", "ce": "D"}.items():
        label = key.upper() if key != "loss" else drawable(say("plots.validation_loss"))
        heights = [getattr(one, key) for _, one in seen]
        handles += axes.plot(where, heights, label=label, marker=mark, **_look("total" if key == "loss" else key))
    axes.set(xlabel=drawable(say("plots.epoch")), ylabel=drawable(say("plots.nats")))
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    agreement = [100 * one.agreement for _, one in seen]
    lazy = [math.nan if one.mean_laziness is None else 100 * one.mean_laziness for _, one in seen]
    for word, name, heights, mark in (
        ("agreement", "agreement", agreement, "^"),
        ("laziness_line", "laziness", lazy, "v"),
    ):
        label = drawable(f"{say(f'plots.{word}')} (%)")
        handles += right.plot(where, heights, label=label, marker=mark, **_look(name))
    right.set(ylabel=drawable(say("plots.percent")), ylim=(-2, 102))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=5, fontsize="small")


_Paint = Callable[["Axes", PlottedRun, Phrases], None]
PANELS: Mapping[str, tuple[_Paint, Callable[[PlottedRun], bool]]] = {
    "losses": (_losses, lambda lesson: bool(lesson.steps)),
    "laziness": (_laziness, lambda lesson: bool(lesson.cards)),
    "readings": (_readings, lambda lesson: bool(lesson.readings)),
    "entropy": (_entropy, lambda lesson: any(card.entropy_gap is not None for card in lesson.cards)),
    "topics": (_topics, lambda lesson: bool(lesson.cards or _mastered(lesson.readings))),
    "validation": (_validation, lambda lesson: any(epoch.validation is not None for epoch in lesson.epochs)),
}


class _CurvePoint(NamedTuple):
    x: float
    low: float
    mean: float
    high: float


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[_CurvePoint]:
    """The points merged with their neighbours into at most `most` buckets."""
    size = -(-len(points) // most) if points else 1
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        _CurvePoint(
            fmean(x for x, _ in part), min(y for _, y in part), fmean(y for _, y in part), max(y for _, y in part)
        )
        for part in stretches
    ]


def _line(
    axes: "Axes",
    curve: Sequence[_CurvePoint],
    name: str,
    *,
    label: str,
    band: bool = False,
    width: float = 1.5,
) -> None:
    """Draw a curve in the look of the quantity `name`."""
    if not curve:
        return
    where = [bucket.x for bucket in curve]
    marker = "o" if len(curve) == 1 else ""
    means = [bucket.mean for bucket in curve]
    axes.plot(where, means, linewidth=width, label=label, marker=marker, **_look(name))
    if band:
        low, high = [bucket.low for bucket in curve], [bucket.high for bucket in curve]
        axes.fill_between(where, low, high, color=_look(name)["color"], alpha=0.15, linewidth=0)


def _look(name: str) -> dict[str, Any]:
    """How matplotlib draws the quantity `name`."""
    curve = CURVES[name]
    return {"color": COLOURS[curve.tone], "linestyle": DASHES[curve.dash]}
