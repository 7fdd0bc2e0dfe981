"""Notebook display: HTML cards in the cell's output, updated in place.

Knows when to show and how much to keep; `render.html` knows how it looks. Knows nothing of training.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import Reading, ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, ExamTaken, Notice, RunFinished, RunStarted, StepDone
from apt_model.i18n import Phrases
from apt_model.render.html import HtmlPainter
from apt_model.render.progress import RunProgress
from apt_model.render.readings import NO_READINGS, LatestReadings

REFRESH_SECONDS = 0.5
EARLIER_CARDS = 5
LATEST_EPOCHS = 20
LATEST_EXAMS = 5
LATEST_NOTICES = 5

Replace = Callable[[str], None]
Show = Callable[[str], Replace]


class NotebookSink:
    """Shows a run below a notebook's cell, in Jupyter, VS Code or Colab.

    Header and progress bar are an output of their own above the cards: in a single one, each step would collapse the
    earlier card that a reader has just opened. However long the run, only the first card and exam, and the latest
    cards, exams and epochs are kept.

    Args:
        config: what to show, in which language.
        show: shows HTML below the cell, and returns a function that replaces it; IPython's display unless given.
        clock: seconds, monotonic.
    """

    def __init__(
        self, config: DisplayConfig, *, show: Show | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._show, self._clock = config, show or show_in_place, clock
        self._say = Phrases.load(config.lang)
        self._begin(None)

    def emit(self, event: Event) -> None:
        """Take one event; shows it at once, or together with those of the next half second."""
        if isinstance(event, RunStarted):
            self._begin(event)
        self._run_progress.follow(event)
        is_news = self._keep(event)
        at_once = isinstance(event, RunStarted | EpochFinished | RunFinished)
        self._head.refresh(changed=isinstance(event, RunStarted | StepDone | ScoredObservation), at_once=at_once)
        self._lesson.refresh(changed=is_news, at_once=at_once)

    def close(self) -> None:
        """Show what is still pending."""
        self._head.refresh(at_once=True)
        self._lesson.refresh(at_once=True)

    def _begin(self, run: RunStarted | None) -> None:
        self._run, self._run_progress = run, RunProgress()
        config, say = self._config, self._say
        say = say if run is None else say.of_run(learns_from_teacher=run.learns_from_teacher)
        self._painter = HtmlPainter(say, max_text_length=config.max_text_length, show_diff=config.show_diff)
        self._first: ScoredObservation | None = None
        self._cards: deque[ScoredObservation] = deque(maxlen=EARLIER_CARDS + 1)
        self._readings = NO_READINGS
        self._epochs: deque[tuple[EpochFinished, LatestReadings]] = deque(maxlen=LATEST_EPOCHS)
        self._first_exam: ExamTaken | None = None
        self._exams: deque[ExamTaken] = deque(maxlen=LATEST_EXAMS)
        self._notices: deque[Notice] = deque(maxlen=LATEST_NOTICES)
        self._verdict: RunFinished | None = None
        self._epochs_seen = 0
        self._head = _Output(self._paint_head, self._show, self._clock)
        self._lesson = _Output(self._paint_lesson, self._show, self._clock)

    def _keep(self, event: Event) -> bool:
        """Store what an event shows; returns whether the cards' output changes."""
        if isinstance(event, ScoredObservation):
            if self._config.show_samples:
                self._first = self._first or event
                self._cards.appendleft(event)
            return self._config.show_samples
        if isinstance(event, ExamTaken):
            self._first_exam = self._first_exam or event
            self._exams.append(event)
            return self._config.show_samples
        if isinstance(event, EpochFinished):
            self._epochs.append((event, self._readings))
            self._epochs_seen += 1
        elif isinstance(event, RunFinished):
            self._verdict = event
        elif isinstance(event, Reading):
            self._readings = self._readings.after(event)
            return False
        elif isinstance(event, Notice):
            self._notices.append(event)
        else:
            return False
        return True

    def _paint_head(self) -> str:
        paint = self._painter
        header = paint.header(self._run) if self._run is not None else ""
        return paint.page(header, paint.progress(self._run_progress))

    def _paint_lesson(self) -> str:
        paint, cards = self._painter, list(self._cards)
        if self._first is not None and self._first is not cards[-1]:
            cards.append(self._first)
        exams = list(self._exams) if self._config.show_samples else []
        if exams and self._first_exam is not None and self._first_exam is not exams[0]:
            exams.insert(0, self._first_exam)
        return paint.page(
            *map(paint.notice, self._notices),
            *map(paint.card, cards[:1]),
            paint.earlier(cards[1:]),
            paint.exams(exams),
            paint.report_cards(self._epochs, left_out=self._epochs_seen - len(self._epochs)),
            paint.verdict(self._verdict) if self._verdict is not None else "",
        )


class _Output:
    """One output below the cell, created with its first content and redrawn at most twice a second."""

    def __init__(self, paint: Callable[[], str], show: Show, clock: Callable[[], float]) -> None:
        self._paint, self._show, self._clock = paint, show, clock
        self._replace: Replace | None = None
        self._changed, self._drawn = False, float("-inf")

    def refresh(self, *, changed: bool = False, at_once: bool = False) -> None:
        """Redraw if something has changed and half a second has passed, or at once."""
        self._changed |= changed
        now = self._clock()
        if not self._changed or (now - self._drawn < REFRESH_SECONDS and not at_once):
            return
        self._changed, self._drawn = False, now
        if self._replace is None:
            self._replace = self._show(self._paint())
        else:
            self._replace(self._paint())


def show_in_place(html: str) -> Replace:
    """Show HTML below the cell; returns a function that replaces it."""
    from IPython import display

    ipython: Any = display  # untyped
    handle = ipython.display(ipython.HTML(html), display_id=True)
    return lambda newer: handle.update(ipython.HTML(newer))
