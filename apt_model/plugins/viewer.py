"""Starts `apt-model watch` as a separate process that neither slows training nor ends with it, and tells its address.

Knows the command; knows nothing of servers or browsers.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from apt_model.config import LessonConfig
from apt_model.events.event import Event
from apt_model.events.records import Notice, RunFinished
from apt_model.events.sinks import Guard
from apt_model.ranks.place import alone

START_SECONDS = 10.0


class Viewer:
    """Opens the page of runs in the browser; called with a run's events, returns the notices that tell its address.

    The address is told after the first event, the header, so that it stands above the first card: that event waits
    for it, `START_SECONDS` at most. It is told again after the verdict.

    Ctrl-C in this terminal does not reach the process. It ends by itself once this process has ended and nobody has
    looked for a minute.

    Raises:
        OSError: no process can be started; from a call: what the process says instead of its address.
    """

    def __init__(self, *runs: Path, lang: str, asks: bool = False) -> None:
        command = [sys.executable, "-m", "apt_model", "watch", *(str(run.absolute()) for run in runs)]
        command += ["--attached", "--lang", lang, *(["--ask"] if asks else [])]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**alone(os.environ), "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._url: str | None = None
        self._patience = START_SECONDS
        Thread(target=_relay, args=(process, self._lines), name="viewer", daemon=True).start()

    def __call__(self, event: Event) -> Notice | None:
        """A notice of the page's address if it has just become known, or the run ends; else None."""
        try:
            line = self._lines.get(timeout=self._patience) if self._patience else self._lines.get_nowait()
        except Empty:
            line = None
        self._patience = 0.0
        if line is not None and (self._url is not None or not line.startswith("http")):
            raise OSError(line)
        self._url = self._url or line
        if self._url is None or (line is None and not isinstance(event, RunFinished)):
            return None
        key = "watch.stays" if isinstance(event, RunFinished) else "watch.attached"
        return Notice(run_id=event.run_id, step=event.step, key=key, values={"url": self._url})


def _relay(process: subprocess.Popen[str], lines: "SimpleQueue[str]") -> None:
    """Hand on the process's lines, and wait for its end, so that it leaves no zombie."""
    with process:
        for line in process.stdout or ():
            lines.put(line.rstrip("\n"))
    lines.put(f"the page's process has ended with exit code {process.returncode}")


def open_page(
    config: LessonConfig, directory: Path | None, guard: Guard, *, beside: Path | None = None
) -> list[Viewer]:
    """The browser page, if the settings want one, `beside` too; one that cannot be opened fails as a display."""
    if directory is None or not config.display.dashboard:
        return []
    runs = [one for one in (directory, beside) if one is not None]
    viewer = guard.run("viewer", partial(Viewer, *runs, lang=config.display.lang, asks=config.display.ask), None)
    return [viewer] if viewer is not None else []
