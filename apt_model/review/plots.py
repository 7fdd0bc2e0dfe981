"""Plots of a run with matplotlib: one figure of its panels, or a PNG file for each.

Events in, figures out. Every text passes `fonts.drawable`; nothing is read as math. Knows nothing of reports or of how
a run is recorded. matplotlib is the `[report]` extra.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_model.errors import ConfigError, StorageError
from apt_model.events.event import Event
from apt_model.i18n import Phrases
from apt_model.review.fonts import drawable, families
from apt_model.review.panels import FAINT, PANELS, PlottedRun, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def panels(events: Sequence[Event]) -> list[str]:
    """The names of the plots that have data: of "losses", "laziness", "readings", "entropy", "topics", "validation"."""
    lesson = PlottedRun.of(events)
    return [name for name, (_, has_any) in PANELS.items() if has_any(lesson)]


def heading(name: str, events: Sequence[Event], say: Phrases) -> str:
    """The title of a plot."""
    return say(f"plots.{title_of(name, PlottedRun.of(events))}")


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
    unknown = [name for name in names or () if name not in PANELS]
    if unknown:
        raise ConfigError("plot is unknown", got=", ".join(unknown), expected=", ".join(PANELS))
    lesson = PlottedRun.of(events)
    names = panels(events) if names is None else names
    words = "".join([title, *_words(say), *(say.topic(topic) for topic in lesson.topics)])
    with matplotlib.rc_context({**STYLE, "font.family": families(drawable(words))}):
        figure = matplotlib.figure.Figure(
            figsize=(SIZE[0], SIZE[1] * max(1, len(names))), layout="constrained", dpi=DPI
        )
        if title:
            figure.suptitle(drawable(title))
        for place, name in enumerate(names, start=1):
            axes = figure.add_subplot(len(names), 1, place)
            axes.set_title(drawable(say(f"plots.{title_of(name, lesson)}")))
            paint, has_any = PANELS[name]
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
    own = ("step", "epoch", "nats", "percent", "nothing", "total", "laziness_line", "text", "kl", "gap")
    rows = [f"{kind}_{key}" for kind in ("unseen", "learned") for key in ("agreement", "laziness")]
    return [say(f"plots.{key}") for key in (*own, *rows, "agreement", "validation_loss", "mastery", *PANELS)]
