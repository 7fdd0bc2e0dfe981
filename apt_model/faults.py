"""Fault injection: named points in the code where a test can raise an exception or kill the process.

Without a test that arms them they do nothing. Knows nothing of what happens at a point.
"""

from collections.abc import Callable

_armed: dict[str, Callable[[], object]] = {}


def hit(name: str) -> None:
    """The point `name` is reached: run the action armed there, if any."""
    if name in _armed:
        _armed[name]()


def arm(name: str, action: Callable[[], object]) -> None:
    """Make `hit(name)` call `action`, which raises or kills the process."""
    _armed[name] = action


def disarm() -> None:
    """Remove all armed actions."""
    _armed.clear()
