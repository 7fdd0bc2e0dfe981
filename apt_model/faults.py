"""Named places where a test can make the machine fail. Nothing happens there unless a test has armed them.

Knows nothing of what is going on at a place.
"""

from collections.abc import Callable

_armed: dict[str, Callable[[], object]] = {}


def hit(name: str) -> None:
    """The place `name` has been reached."""
    if name in _armed:
        _armed[name]()


def arm(name: str, action: Callable[[], object]) -> None:
    """From now on `hit(name)` does `action`: raises, or kills the process."""
    _armed[name] = action


def disarm() -> None:
    """Nothing happens anywhere again."""
    _armed.clear()
