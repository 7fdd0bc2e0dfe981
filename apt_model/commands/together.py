"""How a command runs in several processes that a launcher started: shared out, or by rank 0 while the others wait.

The one place where that is decided: each command says which when it is added. Rank 0 alone shows anything, and all
ranks leave with one line and the same exit code. Knows nothing of what a command does.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from apt_model.commands.console import forget_output
from apt_model.ranks.group import Ranks, ranks

Run = Callable[[argparse.Namespace], None]


def together(command: Run, *, is_shared: bool) -> Run:
    """The command as all ranks call it; with one process it is the command itself.

    Args:
        command: what it does.
        is_shared: every rank calls the command, which shares its work out; else rank 0 does it while the others wait.
    """

    def run(arguments: argparse.Namespace) -> None:
        team = ranks()
        if team.size == 1:
            command(arguments)
            return
        if is_shared:
            with _shown_once(team), team.session():
                _done(command, arguments)
            return
        with _shown_once(team), _ended_by_first(team), team.session(), team.agreed("wait for rank 0"):
            if team.is_first:
                _done(command, arguments)

    return run


def _done(command: Run, arguments: argparse.Namespace) -> None:
    """Run a command; a closed pipe behind its output is no error, here as with one process."""
    try:
        command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_output()


@contextmanager
def _shown_once(team: Ranks) -> Iterator[None]:
    """Context manager: what ranks but the first print goes nowhere; the line of an error is printed after it."""
    if team.is_first:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def _ended_by_first(team: Ranks) -> Iterator[None]:
    """Context manager: Ctrl-C and SIGTERM, which all ranks get, are for rank 0, which may end well by them."""
    if team.is_first:
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
