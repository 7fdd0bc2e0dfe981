"""Blocking work in a daemon thread of its own: a disk that hangs holds up no request, and not the end of the process.

Knows nothing of what the work is.
"""

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> Future[T]:
    """Begin the work; its result or exception comes with the future."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled: the work is under way

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    Thread(target=run, name="aside", daemon=True).start()
    return future


class Lookout:
    """Work on things that may not answer; on one that did not, no more is begun before it does."""

    def __init__(self) -> None:
        self._away: dict[Hashable, Future[Any]] = {}

    def ask(self, thing: Hashable, work: Callable[[], T], *, within: float) -> T:
        """The result of the work.

        Raises:
            TimeoutError: the thing does not answer within so many seconds, or has not since it was asked before.
        """
        if thing in self._away:
            if not self._away[thing].done():
                raise TimeoutError
            del self._away[thing]
        future = aside(work)
        try:
            return future.result(within)
        except TimeoutError:
            self._away[thing] = future
            raise
