"""Signals to a process at drawn moments: what it said on standard error, how it ended, and which children it left."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from apt_model.models.pretrained import save_model

APT = [sys.executable, "-m", "apt_model"]
SENTENCES = ("互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化")
LINE = "interrupted: what was written before is kept\n"


def make_school(folder: Path, teacher: Any, tokenizer: Any, *, lines: int) -> Path:
    """A directory with a teacher and a text for processes that are to be interrupted."""
    save_model(teacher, tokenizer, folder / "teacher")
    text = [SENTENCES[turn % len(SENTENCES)] for turn in range(lines)]
    (folder / "text.txt").write_text("\n".join(text), encoding="utf-8")
    return folder


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended.

    Attributes:
        heard: whether it had begun to listen when the first signal was sent; else Python itself was still starting.
        was_over: it had ended before the first signal.
        left: processes that it started, and that were still there a second after its end.
        lasted: the seconds from the last signal to its end.
    """

    command: str
    after: float
    heard: bool
    was_over: bool
    code: int
    said: str
    left: Sequence[str]
    lasted: float

    def is_right(self, number: int) -> bool:
        """One line or none, and the exit code of the signal, or that of a command which was over already."""
        lines = self.said.count("\n")
        return (
            not self.left
            and "Traceback" not in self.said
            and (self.was_over or (lines == 1 and self.code == 128 + number))
        )


def listens(process: int) -> bool:
    """Whether a process has a handler of SIGTERM, which Python has not by itself."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def interrupted(
    command: Sequence[str],
    cwd: Path,
    *,
    moment: Callable[[int], object],
    signals: Sequence[int] = (signal.SIGINT,),
    group: bool = False,
    apart: float = 0.0,
) -> Ended:
    """Start a command, wait for the moment, send the signals to it (or, as a terminal does, to its group), wait."""
    errors = cwd / f"stderr-{random.random()}"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        )
    started = time.monotonic()
    moment(process.pid)
    heard, was_over, after = listens(process.pid), process.poll() is not None, time.monotonic() - started
    for turn, number in enumerate(signals):
        time.sleep(apart if turn else 0)
        if process.poll() is None:
            os.killpg(process.pid, number) if group else process.send_signal(number)
    sent = time.monotonic()
    code = process.wait(timeout=120)
    lasted = time.monotonic() - sent
    said = errors.read_text("utf-8", "replace")
    errors.unlink()
    return Ended(
        command=" ".join(command[3:]),
        after=after,
        heard=heard,
        was_over=was_over,
        code=code,
        said=said,
        left=left_of(process.pid),
        lasted=lasted,
    )


def left_of(session: int) -> list[str]:
    """The processes of a session that are still there after a second."""
    end = time.monotonic() + 1
    while found := _in_session(session):
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    return found


def _in_session(session: int) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.info["cmdline"] or ())[:200])
        except (ProcessLookupError, PermissionError):
            continue
    return found
