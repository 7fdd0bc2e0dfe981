"""Terminal display: cards, and one live progress line below them. In a pipe, the same cards as plain lines.

Knows how terminals differ; knows nothing of training.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.control import Control
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.segment import ControlType, Segment
from rich.table import Table

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, EpochStarted, ExamTaken, Notice, RunFinished, RunStarted, StepDone
from apt_model.i18n import Phrases
from apt_model.render.card import CardPainter, CardStyle
from apt_model.render.language import spoken_language
from apt_model.render.progress import RunProgress
from apt_model.render.readings import NO_READINGS
from apt_model.render.sanitise import fit_encoding

PIPED_COLUMNS = 80
REFRESH_SECONDS = 0.25


class TerminalSink:
    """Shows a run on a terminal, or as plain text in a pipe.

    Args:
        config: what to show, in which language.
        file: where to write; standard output where None.
        live: keep a progress line below the cards, on a terminal.
    """

    def __init__(self, config: DisplayConfig, *, file: IO[str] | None = None, live: bool = True) -> None:
        self._config = config
        self._console = make_console(file)
        self._say = spoken_language(config.lang, self._console.encoding)
        self._on_screen = self._console.is_terminal and not self._console.is_dumb_terminal
        self._readings = NO_READINGS
        self._paints = self._painters_of(self._say)
        self._progress = _ProgressLine(self._console, self._say) if self._on_screen and live else None

    def emit(self, event: Event) -> None:
        """Show one event."""
        self._print(self._paint(event))
        if self._progress is not None:
            self._progress.follow(event)

    def close(self) -> None:
        """Remove the progress line."""
        if self._progress is not None:
            self._progress.stop()

    def _painters_of(self, phrases: Phrases) -> Mapping[type[Event], Callable[[Any], Iterable[RenderableType]]]:
        """What paints each kind of event, in the sentences of a lesson or of a run that is only observed."""
        painter = CardPainter(
            CardStyle(
                phrases=phrases,
                columns=self._console.width - 1,
                colour=self._console.color_system is not None,
                encoding=self._console.encoding,
                max_text_length=self._config.max_text_length,
                show_diff=self._config.show_diff,
            )
        )
        return {
            ScoredObservation: painter.card,
            ExamTaken: painter.exam,
            RunStarted: painter.header,
            EpochStarted: painter.epoch,
            EpochFinished: lambda epoch: painter.report_card(epoch, self._readings),
            RunFinished: painter.verdict,
            Notice: painter.notice,
        }

    def _paint(self, event: Event) -> Iterable[RenderableType]:
        if isinstance(event, ScoredObservation | ExamTaken) and not self._config.show_samples:
            return ()
        self._readings = self._readings.after(event)
        if isinstance(event, RunStarted):
            self._readings = NO_READINGS
            self._paints = self._painters_of(self._say.of_run(learns_from_teacher=event.learns_from_teacher))
        if isinstance(event, RunFinished) and self._progress is not None:
            self._progress.stop()
        return next((paint(event) for kind, paint in self._paints.items() if isinstance(event, kind)), ())

    def _print(self, pieces: Iterable[RenderableType]) -> None:
        for piece in pieces:
            boxed = piece if isinstance(piece, Table) and piece.box is not None else None
            aligned = _RightBorder(boxed) if self._on_screen and boxed is not None else piece
            self._console.print(aligned, crop=False, soft_wrap=not isinstance(piece, Table))


def make_console(file: IO[str] | None = None) -> Console:
    """A console that prints any text as it is: no markup, emoji codes or highlighting.

    In a pipe it is 80 columns wide, without colours and control sequences.
    """
    stream = file if file is not None else sys.stdout
    if stream is None:
        raise OSError("there is no standard output")
    is_terminal = stream.isatty() and not os.environ.get("CI")
    return _Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=is_terminal,
        force_jupyter=False,
        width=None if is_terminal else PIPED_COLUMNS,
        color_system="auto" if is_terminal else None,
    )


class _Console(Console):
    """A console that raises on a closed pipe, where rich would end the process: a display must not end training."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError("nobody reads the output any more")


class _RightBorder:
    """Draws a table with the cursor set before each right border, so that the borders line up on any terminal,
    whatever width it gives an emoji."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._table, options, pad=False):
            *inside, border = [segment for segment in line if segment.text]
            column = sum(segment.cell_length for segment in inside) + border.cell_length - 1
            body = border.text[:-1]
            yield from inside
            if body:
                yield Segment(body, border.style)
            yield Control((ControlType.CURSOR_MOVE_TO_COLUMN, column)).segment
            yield Segment(border.text[-1], border.style)
            yield Segment.line()


class _ProgressLine:
    """The live progress line: epoch, bar, steps, rate, time left, loss, laziness; at most four redraws a second."""

    def __init__(self, console: Console, say: Phrases) -> None:
        self._say, self._encoding = say, console.encoding
        self._narrow = console.width < 60
        columns = [TextColumn("{task.description}", markup=False)]
        bar = [] if self._narrow else [BarColumn(bar_width=None)]
        self._progress = Progress(*columns, *bar, console=console, auto_refresh=False, transient=True, expand=True)
        self._task: TaskID | None = None
        self._run_progress = RunProgress()
        self._drawn = 0.0

    def follow(self, event: Event) -> None:
        """Update the line from one event."""
        self._run_progress.follow(event)
        if isinstance(event, RunStarted):
            self._task = self._progress.add_task("", total=event.total_steps)
            self._progress.start()
        elif isinstance(event, StepDone):
            self._draw()

    def stop(self) -> None:
        """Remove the line."""
        self._progress.stop()

    def _draw(self) -> None:
        now = time.monotonic()
        if self._task is None or now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        parts = self._run_progress.parts(self._say, brief=self._narrow)
        text = "  ".join(fit_encoding(part, self._encoding) for part in parts)
        self._progress.update(self._task, completed=self._run_progress.step, description=text, refresh=True)
