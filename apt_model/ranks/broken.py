"""What a rank notices of another's end: a broken connection, and the launcher's SIGTERM.

Knows the words and classes of torch's backends; a watch tells who has ended.
"""

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from apt_model.errors import AptModelError, RankLostError, told_of
from apt_model.ranks.place import has_group
from apt_model.ranks.watch import BEAT, RankWatch

LAST_WORDS = 10.0  # seconds for a process to end after an error
WORDS = re.compile(r"gloo|nccl|c10d|ProcessGroup|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


def is_of_connection(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is torch's over the connections between the ranks."""
    dist, seen = sys.modules.get("torch.distributed"), set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if dist is not None and isinstance(error, dist.DistError):
            return True
        if type(error) is RuntimeError and WORDS.search(str(error)):
            return True
        error = error.__cause__
    return False


def who_broke_it(watch: RankWatch) -> AptModelError:
    """The error of a broken connection: what the watch finds, soon."""
    told = watch.await_finding(watch.patience + 3 * BEAT)
    fix = "check the network between the machines"
    unknown = RankLostError("a connection to another rank broke, though all ranks show signs of life", fix=fix)
    named = unknown if told is None else told_of(told)
    named.last_good = watch.ends.last_good()
    return named


@contextmanager
def told_to_end(heard: Callable[[int], None]) -> Iterator[None]:
    """Context manager that calls `heard` at SIGTERM, unless somebody else handles it; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    handler = SigtermHandler(heard)
    signal.signal(signal.SIGTERM, handler.hear)
    try:
        yield
    except BaseException:
        handler.since = time.monotonic()
        raise
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def own_group_ended() -> Iterator[None]:
    """Context manager that ends the process group that was made inside: torch aborts a process that exits with one."""
    was_there, has_failed = has_group(), True
    try:
        yield
        has_failed = False
    finally:
        if has_group() and not was_there:
            import torch.distributed as dist

            if not has_failed or dist.get_backend() == "gloo":  # NCCL's would wait for what the others never sent
                dist.destroy_process_group()


class SigtermHandler:
    """A handler of SIGTERM for a session; after one that failed it lets the process say so, and end by itself."""

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard, self.since = heard, float("inf")

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The signal has come: in the session, while the process ends after it, or later."""
        after = time.monotonic() - self.since
        if after < 0:
            self._heard(number)
        elif after > LAST_WORDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
