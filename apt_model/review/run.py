"""A recorded run as an object, for notebooks and scripts: `apt_model.Run("runs/demo-20261125-101500")`.

Knows the record and its displays. Imports matplotlib, pandas or the page only when they are used, and never torch.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from apt_model.errors import ConfigError
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.recorded import name_of
from apt_model.events.records import EpochFinished, RunFinished, RunStarted, StepDone
from apt_model.events.runfile import EVENTS, read_events
from apt_model.i18n import LANGUAGES, Phrases

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT_OUT = ("run_id", "detail")  # no columns of a frame: the same in every row; a table in every cell
E = TypeVar("E", bound=Event)


class Frames(NamedTuple):
    """A run as pandas data frames, indexed by step: the optimizer steps, and the cards."""

    steps: Any
    cards: Any


class Run:
    """A recorded run; of a run that is still training, what has been recorded so far.

    Args:
        path: the run directory, or its events.jsonl.
        lang: "zh", "en" or the path of a locale file (.toml); None: the language that the run was shown in.

    Raises:
        StorageError: there is no record.
        DataError: the record is damaged.
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
        """The name of the run directory."""
        return name_of(self._directory.resolve())

    @property
    def events(self) -> tuple[Event, ...]:
        """All events in order; read again when the record has changed."""
        now = None
        with suppress(OSError, ValueError):  # `read_events` says what is wrong with it
            about = (self._directory / EVENTS).stat()
            now = about.st_size, about.st_mtime_ns
        if now is None or now != self._read_at:
            self._events, self._read_at = tuple(read_events(self._directory)), now
        return self._events

    @property
    def started(self) -> RunStarted | None:
        """The event with models and settings; None before it is recorded."""
        return next(iter(self._of(RunStarted)), None)

    @property
    def steps(self) -> list[StepDone]:
        """The optimizer steps."""
        return self._of(StepDone)

    @property
    def cards(self) -> list[ScoredObservation]:
        """The cards: both models' texts on a sample, with laziness and remark."""
        return self._of(ScoredObservation)

    @property
    def epochs(self) -> list[EpochFinished]:
        """The report cards of the epochs."""
        return self._of(EpochFinished)

    @property
    def verdict(self) -> RunFinished | None:
        """The summary at the run's end; None before."""
        return next(iter(self._of(RunFinished)), None)

    def plot(self, *names: str) -> "Figure":
        """A matplotlib figure of the named plots, or of all that have data.

        Args:
            names: of "losses", "laziness", "readings", "entropy", "topics", "validation".

        Raises:
            ConfigError: no such plot, or matplotlib is not installed.
        """
        from apt_model.review import plots

        return plots.draw(self.events, Phrases.load(self.lang), names=names or None, title=self.name)

    def to_pandas(self) -> Frames:
        """The steps and the cards as two data frames, with the records' fields as columns.

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
            DataError: no line of the record is an event.
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
        """Path, numbers of steps and cards, and whether the run is finished."""
        end = "finished" if self.verdict is not None else "not finished"
        steps = self.events[-1].step if self.events else 0
        return f"Run({str(self.path)!r}, {steps} steps, {len(self.cards)} cards, {end})"

    def _repr_html_(self) -> str:
        """The HTML that notebooks show: the header, the last card, the report cards, the verdict."""
        from apt_model.render.html import HtmlPainter
        from apt_model.render.notebook import LATEST_EPOCHS
        from apt_model.render.readings import reported

        started, verdict, epochs = self.started, self.verdict, reported(self.events)
        learns = started is None or started.learns_from_teacher
        paint = HtmlPainter(Phrases.load(self.lang).of_run(learns_from_teacher=learns))
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
        """The run's language; Chinese if that was a locale file that does not exist here."""
        started = self.started
        lang = str(started.config.get("lang", "zh")) if started is not None else "zh"
        return lang if lang in LANGUAGES or Path(lang).is_file() else "zh"


def _frame(pandas: Any, kind: type[Event], events: Sequence[Event]) -> Any:
    columns = [one.name for one in fields(kind) if one.name not in LEFT_OUT]
    rows = [[getattr(event, name) for name in columns] for event in events]
    return pandas.DataFrame(rows, columns=columns).set_index("step")
