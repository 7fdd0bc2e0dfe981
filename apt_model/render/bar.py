"""Progress bar of a long task: a bar on a terminal, a plain line every tenth of the way in a pipe.

Knows numbers and a console; knows nothing of the task.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from apt_model.i18n import Phrases
from apt_model.render.sanitise import fit_encoding
from apt_model.render.sentences import duration
from apt_model.render.terminal import REFRESH_SECONDS

TENTHS = 10


class ProgressBar:
    """Context manager whose `advance` shows the progress.

    Args:
        console: as `render.terminal.make_console` makes it.
        say: phrases of the language.
    """

    def __init__(self, console: Console, say: Phrases) -> None:
        self._console, self._say = console, say
        columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=None)]
        self._progress = Progress(*columns, console=console, auto_refresh=False, transient=True, expand=True)
        self._task = self._progress.add_task("", total=1.0)
        self._on_screen = console.is_terminal and not console.is_dumb_terminal
        self._began: tuple[float, int] | None = None
        self._drawn = 0.0
        self._tenth = 0

    def __enter__(self) -> Self:
        if self._on_screen:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, done: int, total: int) -> None:
        """Show that `done` of `total` is done; the first call gives the starting point."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._tenth = (now, done), TENTHS * done // max(total, 1)
        since, before = self._began
        left = duration((total - done) * (now - since) / (done - before)) if done > before else "…"
        text = f"{done:,}/{total:,}  {self._say('progress.left', time=left)}"
        line = fit_encoding(text, self._console.encoding)
        if self._on_screen:
            if now - self._drawn >= REFRESH_SECONDS:
                self._drawn = now
                self._progress.update(self._task, completed=done / max(total, 1), description=line, refresh=True)
        elif TENTHS * done // max(total, 1) > self._tenth:
            self._tenth = TENTHS * done // max(total, 1)
            self._console.print(line, soft_wrap=True)
