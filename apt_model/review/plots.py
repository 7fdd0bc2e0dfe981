"""Plots of a run with matplotlib: losses, laziness and its parts, entropy, topics, validation.

Events in, figures out. Every text passes `fonts.drawable`; nothing is read as math; lines differ in more than colour.
Long curves are drawn as bucket means within the band of minimum and maximum. Knows nothing of reports or of how a run
is recorded. matplotlib is the `[report]` extra.
"""

import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from apt_model.errors import ConfigError, StorageError
from apt_model.events.laziness import LazinessScale
from apt_model.events.records import EpochFinished, Event, RunStarted, StepDone
from apt_model.events.records import ScoredObservation as Card
from apt_model.i18n import Phrases
from apt_model.render.sentences import topic_name
from apt_model.review.fonts import drawable, families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BUCKETS = 400  # points of a curve: about as many as a figure can resolve
CARD_BUCKETS = 40
MOST_TOPICS, MOST_COLUMNS = 12, 12
DARK = 75  # percent, above which white text is easier to read on the map's colour than black
FAINT = 0.3  # opacity of the grid, and of single cards behind their curve
COLOURS = ("#1b4f72", "#c1443c", "#1e8449", "#7d5a00")  # all of them at least 4.5 : 1 on white
DASHES = ("-", "--", "-.", ":")
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": FAINT,
    "legend.frameon": False,
    "text.parse_math": False,
}
SIZE, DPI = (8.0, 4.2), 120


@dataclass(frozen=True, kw_only=True)
class _PlottedRun:
    """The events of a run that are drawn."""

    scale: LazinessScale | None
    steps: list[StepDone] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    epochs: list[EpochFinished] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[Event]) -> "_PlottedRun":
        lesson = cls(scale=next((event.laziness_scale for event in events if isinstance(event, RunStarted)), None))
        homes: Mapping[type[Event], list[Any]] = {
            StepDone: lesson.steps,
            Card: lesson.cards,
            EpochFinished: lesson.epochs,
        }
        for event in events:
            if type(event) in homes:
                homes[type(event)].append(event)
        return lesson


def panels(events: Sequence[Event]) -> list[str]:
    """The names of the plots that have data: of "losses", "laziness", "entropy", "topics", "validation"."""
    lesson = _PlottedRun.of(events)
    return [name for name, (_, has_any) in _PANELS.items() if has_any(lesson)]


def draw(events: Sequence[Event], say: Phrases, *, names: Sequence[str] | None = None, title: str = "") -> "Figure":
    """One figure with the plots below each other.

    Args:
        events: of one run.
        say: the language.
        names: which plots; None: all that have data.
        title: of the figure.

    Raises:
        ConfigError: no such plot, or matplotlib is not installed.
    """
    matplotlib = _matplotlib()
    unknown = [name for name in names or () if name not in _PANELS]
    if unknown:
        raise ConfigError("plot is unknown", got=", ".join(unknown), expected=", ".join(_PANELS))
    lesson = _PlottedRun.of(events)
    names = panels(events) if names is None else names
    words = "".join([title, *_words(say), *(say.topic(topic) for topic in {card.topic for card in lesson.cards})])
    with matplotlib.rc_context({**STYLE, "font.family": families(drawable(words))}):
        figure = matplotlib.figure.Figure(
            figsize=(SIZE[0], SIZE[1] * max(1, len(names))), layout="constrained", dpi=DPI
        )
        if title:
            figure.suptitle(drawable(title))
        for place, name in enumerate(names, start=1):
            axes = figure.add_subplot(len(names), 1, place)
            axes.set_title(drawable(say(f"plots.{name}")))
            paint, has_any = _PANELS[name]
            if has_any(lesson):
                paint(axes, lesson, say)
            else:
                axes.text(0.5, 0.5, drawable(say("plots.nothing")), ha="center", transform=axes.transAxes)
        return _shown_in_notebooks(figure)


def save(events: Sequence[Event], directory: Path, say: Phrases) -> dict[str, Path]:
    """Save each plot that has data as a PNG file; returns their paths by name.

    Raises:
        ConfigError: matplotlib is not installed.
        StorageError: the directory cannot be written.
    """
    made = {}
    for name in panels(events):
        made[name] = directory / f"{name}.png"
        picture = png(draw(events, say, names=[name]))
        try:
            directory.mkdir(parents=True, exist_ok=True)
            made[name].write_bytes(picture)
        except OSError as error:
            raise StorageError(f"plot cannot be written to {made[name]}", got=error.strerror) from error
    return made


def png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG file, without metadata on when or by what it was made."""
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib", fix="pip install 'apt-model[report]'") from error
    return matplotlib


def _shown_in_notebooks(figure: "Figure") -> "Figure":
    """Make notebooks show the figure, which pyplot does not manage, as a PNG image."""
    anything: Any = figure
    anything._repr_png_ = lambda: png(figure)
    return figure


def _words(say: Phrases) -> list[str]:
    own = ("step", "epoch", "nats", "percent", "nothing", "total", "laziness_line", "text", "kl", "disagreement", "gap")
    return [say(f"plots.{key}") for key in (*own, "agreement", "validation_loss", *_PANELS)]


# --- the plots


def _losses(axes: "Axes", lesson: _PlottedRun, say: Phrases) -> None:
    lines = {"total": "loss", "kd": "kd", "ce": "ce"}
    for (word, key), colour, dash in zip(lines.items(), COLOURS, DASHES, strict=False):
        numbers = [(step.step, getattr(step, key)) for step in lesson.steps]
        curve = _thinned([(x, y) for x, y in numbers if y is not None and math.isfinite(y)], BUCKETS)
        label = drawable(say("plots.total")) if word == "total" else word.upper()
        _line(axes, curve, label=label, colour=colour, dash=dash, band=word == "total")
    seen = [(e.step, e.validation.loss) for e in lesson.epochs if e.validation and math.isfinite(e.validation.loss)]
    if seen:
        axes.plot(*zip(*seen, strict=True), "D", color=COLOURS[3], label=drawable(say("plots.validation_loss")))
    axes.set(xlabel=drawable(say("plots.step")), ylabel=drawable(say("plots.nats")))
    axes.set_ylim(bottom=0)
    axes.legend()


def _laziness(axes: "Axes", lesson: _PlottedRun, say: Phrases) -> None:
    cards = lesson.cards
    axes.plot([c.step for c in cards], [100 * c.laziness for c in cards], ".", color=COLOURS[0], alpha=FAINT)
    parts: Mapping[str, Callable[[Card], float]] = {
        "laziness_line": lambda card: card.laziness,
        "text": lambda card: 1 - card.similarity,
        "kl": lambda card: card.normalised_kl,
        "disagreement": lambda card: 1 - card.agreement,
    }
    for (word, ratio), colour, dash in zip(parts.items(), COLOURS, DASHES, strict=True):
        curve = _thinned([(card.step, 100 * ratio(card)) for card in cards], CARD_BUCKETS)
        wide = 2.5 if word == "laziness_line" else 1.2
        _line(axes, curve, label=drawable(say(f"plots.{word}")), colour=colour, dash=dash, width=wide)
    axes.set(xlabel=drawable(say("plots.step")), ylabel=drawable(say("plots.percent")), ylim=(-2, 102))
    lights = [100 * lesson.scale.green_below, 100 * lesson.scale.yellow_below] if lesson.scale else []
    axes.set_yticks([0, *lights, 100])  # where the light changes
    axes.legend()


def _entropy(axes: "Axes", lesson: _PlottedRun, say: Phrases) -> None:
    gaps = [(card.step, card.entropy_gap) for card in lesson.cards if card.entropy_gap is not None]
    axes.axhline(0, color="grey", linewidth=1)
    axes.plot(*zip(*gaps, strict=True), ".", color=COLOURS[0], alpha=FAINT)
    _line(axes, _thinned(gaps, CARD_BUCKETS), label=drawable(say("plots.gap")), colour=COLOURS[0], dash="-")
    axes.set(xlabel=drawable(say("plots.step")), ylabel=drawable(say("plots.nats")))
    axes.legend()


def _topics(axes: "Axes", lesson: _PlottedRun, say: Phrases) -> None:
    counts = Counter(card.topic for card in lesson.cards)
    topics = [topic for topic, _ in counts.most_common(MOST_TOPICS)]
    last = max(card.epoch for card in lesson.cards)
    width = -(-last // MOST_COLUMNS)
    columns = [(first, min(first + width - 1, last)) for first in range(1, last + 1, width)]
    seen: dict[tuple[str, int], list[float]] = {}
    for card in lesson.cards:
        seen.setdefault((card.topic, (card.epoch - 1) // width), []).append(100 * card.laziness)
    table = [
        [fmean(seen[topic, i]) if (topic, i) in seen else math.nan for i in range(len(columns))] for topic in topics
    ]
    axes.imshow(table, aspect="auto", cmap="YlOrBr", vmin=0, vmax=100)
    for row, numbers in enumerate(table):
        for column, number in enumerate(numbers):
            said = "–" if math.isnan(number) else f"{number:.0f}"
            axes.text(column, row, said, ha="center", va="center", color="white" if number > DARK else "black")
    axes.set_yticks(range(len(topics)), [drawable(f"{topic_name(topic, say)} ({counts[topic]})") for topic in topics])
    names = [str(first) if first == end else f"{first}–{end}" for first, end in columns]
    axes.set_xticks(range(len(columns)), names)
    axes.set_xlabel(drawable(say("plots.epoch")))
    axes.grid(visible=False)


def _validation(axes: "Axes", lesson: _PlottedRun, say: Phrases) -> None:
    from matplotlib.ticker import MaxNLocator

    seen = [(epoch.epoch, epoch.validation) for epoch in lesson.epochs if epoch.validation is not None]
    where = [epoch for epoch, _ in seen]
    handles = []
    for key, colour, dash, mark in zip(("loss", "kd", "ce"), COLOURS, DASHES, "osD", strict=False):
        label = key.upper() if key != "loss" else drawable(say("plots.validation_loss"))
        heights = [getattr(one, key) for _, one in seen]
        handles += axes.plot(where, heights, color=colour, linestyle=dash, marker=mark, label=label)
    axes.set(xlabel=drawable(say("plots.epoch")), ylabel=drawable(say("plots.nats")))
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    agreement = [100 * one.agreement for _, one in seen]
    lazy = [math.nan if one.mean_laziness is None else 100 * one.mean_laziness for _, one in seen]
    for word, heights, mark, colour in (
        ("agreement", agreement, "^", "#5b2c6f"),
        ("laziness_line", lazy, "v", COLOURS[3]),
    ):
        label = drawable(f"{say(f'plots.{word}')} (%)")
        handles += right.plot(where, heights, color=colour, linestyle=":", marker=mark, label=label)
    right.set(ylabel=drawable(say("plots.percent")), ylim=(-2, 102))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=5, fontsize="small")


_Paint = Callable[["Axes", _PlottedRun, Phrases], None]
_PANELS: Mapping[str, tuple[_Paint, Callable[[_PlottedRun], bool]]] = {
    "losses": (_losses, lambda lesson: bool(lesson.steps)),
    "laziness": (_laziness, lambda lesson: bool(lesson.cards)),
    "entropy": (_entropy, lambda lesson: any(card.entropy_gap is not None for card in lesson.cards)),
    "topics": (_topics, lambda lesson: bool(lesson.cards)),
    "validation": (_validation, lambda lesson: any(epoch.validation is not None for epoch in lesson.epochs)),
}


# --- curves of any length


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
    *,
    label: str,
    colour: str,
    dash: str,
    band: bool = False,
    width: float = 1.5,
) -> None:
    if not curve:
        return
    where = [bucket.x for bucket in curve]
    marker = "o" if len(curve) == 1 else ""
    means = [bucket.mean for bucket in curve]
    axes.plot(where, means, color=colour, linestyle=dash, linewidth=width, label=label, marker=marker)
    if band:
        low, high = [bucket.low for bucket in curve], [bucket.high for bucket in curve]
        axes.fill_between(where, low, high, color=colour, alpha=0.15, linewidth=0)
