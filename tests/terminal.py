"""A real terminal for a process: what it draws, when it draws first, and Ctrl-C."""

import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

LIMIT_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a process drew: all of it, the seconds until the first byte, and its exit code."""

    text: str
    first_seconds: float
    code: int


def on_terminal(
    command: Sequence[str],
    cwd: Path,
    *,
    env: Mapping[str, str] | None = None,
    columns: int = 80,
    interrupt_after: float | None = None,
) -> Shown:
    """Run a command on a terminal of its own; Ctrl-C so many seconds after its first byte."""
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    environment |= {"TERM": "xterm-256color", **(env or {})}
    started, drawn, first = time.monotonic(), b"", 0.0
    process, screen = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.execvpe(command[0], list(command), environment)
    ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    while time.monotonic() < started + LIMIT_SECONDS:
        if first and interrupt_after is not None and time.monotonic() - started > first + interrupt_after:
            os.kill(process, signal.SIGINT)
            interrupt_after = None
        if not select.select([screen], [], [], 0.01)[0]:
            continue
        try:
            read = os.read(screen, 65536)
        except OSError:  # how Linux tells that nobody writes any more
            break
        first = first or time.monotonic() - started
        drawn += read
    else:
        os.kill(process, signal.SIGKILL)
    os.close(screen)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Shown(text=drawn.decode("utf-8", "replace"), first_seconds=first, code=code)
