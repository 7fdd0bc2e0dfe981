"""A recorded lesson as an object, for a notebook or a script: `apt_model.Run("runs/demo-20261125-101500")`.

Knows the record and who can show it. Loads matplotlib, pandas or the page only when asked for them, and never torch.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from apt_model.errors import ConfigError
from apt_model.events.records import EpochFinished, Event, RunFinished, RunStarted, ScoredObservation, StepDone
from apt_model.events.runfile import EVENTS, read_events
from apt_model.i18n import LANGUAGES, Phrases

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT_OUT = ("run_id", "detail")  # of a frame: the same everywhere, and a table of its own in each cell
E = TypeVar("E", bound=Event)


class Frames(NamedTuple):
    """A run as pandas frames, indexed by step: the optimizer steps, and the cards."""

    steps: Any
    cards: Any


class Run:
    """A run by its directory, or by its events.jsonl; of a lesson that goes on, it shows what there is by now.

    Args:
        path: the run directory.
        lang: "zh", "en" or the path of a locale .toml; the one that the lesson was shown in where None.

    Raises:
        StorageError: there is no record.
        DataError: the record cannot be read.
        ConfigError: no such language.
    """

    def __init__(self, path: str | Path, *, lang: str | None = None) -> None:
        self.path = Path(path)
        self._events: tuple[Event, ...] = ()
        self._read_at: tuple[int, int] | None = None
        self.lang = lang if lang is not None else self._recorded_language()
        Phrases.load(self.lang)

    @property
    def name(self) -> str:
        """What the run directory is called."""
        return self._directory.resolve().name

    @property
    def events(self) -> tuple[Event, ...]:
        """All that happened, in order; read again when the record has changed."""
        place = self._directory / EVENTS
        now = (place.stat().st_size, place.stat().st_mtime_ns) if place.exists() else None
        if now is None or now != self._read_at:
            self._events, self._read_at = tuple(read_events(self._directory)), now
        return self._events

    @property
    def started(self) -> RunStarted | None:
        """Models and settings."""
        return next(iter(self._of(RunStarted)), None)

    @property
    def steps(self) -> list[StepDone]:
        """The optimizer steps."""
        return self._of(StepDone)

    @property
    def cards(self) -> list[ScoredObservation]:
        """What teacher and student said, with its judgement."""
        return self._of(ScoredObservation)

    @property
    def epochs(self) -> list[EpochFinished]:
        """The report cards."""
        return self._of(EpochFinished)

    @property
    def verdict(self) -> RunFinished | None:
        """What came of it; None while the lesson goes on."""
        return next(iter(self._of(RunFinished)), None)

    def plot(self, *names: str) -> "Figure":
        """A matplotlib figure of the plots "losses", "laziness", "entropy", "topics", "validation"; without names, all.

        Raises:
            ConfigError: no such plot, or matplotlib is not installed.
        """
        from apt_model.review import plots

        return plots.draw(self.events, Phrases.load(self.lang), names=names or None, title=self.name)

    def to_pandas(self) -> Frames:
        """The steps and the cards as two frames, with the records' own names as columns.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ConfigError("frames need pandas", fix="pip install pandas") from error
        steps, cards = self.steps, self.cards
        return Frames(_frame(pandas, StepDone, steps), _frame(pandas, ScoredObservation, cards))

    def report(self, path: str | Path) -> Path:
        """Write the run as one HTML file that opens offline; returns its path.

        Raises:
            StorageError: the file cannot be written.
        """
        from apt_model.dashboard.report import write_report

        return write_report([self._directory], Path(path))

    def summary(self, directory: str | Path) -> Path:
        """Write the run as Markdown with its plots as PNG into a directory; returns the page's path.

        Raises:
            ConfigError: matplotlib is not installed.
            StorageError: the directory cannot be written.
        """
        from apt_model.review.markdown import write_summary

        return write_summary(self._directory, directory, self.lang)

    def __repr__(self) -> str:
        """Path, steps, and whether it is over."""
        end = "finished" if self.verdict is not None else "not finished"
        steps = self.events[-1].step if self.events else 0
        return f"Run({str(self.path)!r}, {steps} steps, {len(self.cards)} cards, {end})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the header, the last card, the report cards, the verdict."""
        from apt_model.render.html import HtmlPainter
        from apt_model.render.notebook import LATEST_EPOCHS

        paint = HtmlPainter(Phrases.load(self.lang))
        started, verdict, epochs = self.started, self.verdict, self.epochs
        return paint.page(
            paint.header(started) if started is not None else "",
            *map(paint.card, self.cards[-1:]),
            paint.report_cards(epochs[-LATEST_EPOCHS:], left_out=max(0, len(epochs) - LATEST_EPOCHS)),
            paint.verdict(verdict) if verdict is not None else "",
        )

    @property
    def _directory(self) -> Path:
        return self.path.parent if self.path.name == EVENTS else self.path

    def _of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if type(event) is kind]

    def _recorded_language(self) -> str:
        """The lesson's own; Chinese where it was a file that is not here."""
        started = self.started
        lang = str(started.config.get("lang", "zh")) if started is not None else "zh"
        return lang if lang in LANGUAGES or Path(lang).is_file() else "zh"


def _frame(pandas: Any, kind: type[Event], events: Sequence[Event]) -> Any:
    columns = [one.name for one in fields(kind) if one.name not in LEFT_OUT]
    rows = [[getattr(event, name) for name in columns] for event in events]
    return pandas.DataFrame(rows, columns=columns).set_index("step")
