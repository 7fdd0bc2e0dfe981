"""Notices: what a reader of data leaves out or changes is told once, by key, in the language of whoever reads it.

Knows sentences; knows nothing of rows or of where a notice is shown.
"""

import warnings
from collections.abc import Mapping
from typing import Protocol

from apt_model.i18n import Phrases

KeyedNotice = tuple[str, Mapping[str, str | int | float]]  # key of a sentence, and what fills it


class Tell(Protocol):
    """Takes the key of a sentence of the locales' table `notice`, and what fills it; tells each key once."""

    def __call__(self, key: str, /, **values: str | int | float) -> None:
        """Tell it."""


def warn(key: str, /, **values: str | int | float) -> None:
    """Tell by a Python warning, in English: what functions do that nobody gave another way to tell."""
    warnings.warn(Phrases.load("en")(f"notice.{key}", **values), UserWarning, stacklevel=2)


def untold(key: str, /, **values: str | int | float) -> None:
    """Tell nobody: of rows that are looked at, and told of where they are learned from."""


def once(tell: Tell) -> Tell:
    """Tells each key once, whatever fills its sentence."""
    told = set[str]()

    def tell_once(key: str, /, **values: str | int | float) -> None:
        if key not in told:
            told.add(key)
            tell(key, **values)

    return tell_once
