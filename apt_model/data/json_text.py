"""JSON in a file, or in a string of a row: the one way from such a text to a value. Knows nothing of rows."""

import json
import re
from typing import Any

from apt_model.data.columns import named_twice
from apt_model.errors import brief

DEEPEST = 100  # lists and objects within each other: whoever walks a value needs a few frames of Python for each
_STEPS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)  # a string, or into a value, or out of one


class RefusedJsonError(ValueError):
    """A JSON text that a parser could take, and we do not: too deep, or a key of an object stands there twice."""


class TooDeepError(RefusedJsonError):
    """A JSON text is nested more than DEEPEST deep, first in `line`, from 1."""

    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__(f"more than {DEEPEST} lists and objects within each other")


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON, or a number of too many digits. RefusedJsonError: a key stands twice in an object.
            TooDeepError: before it is parsed, for a parser that calls itself may end the process, and so may whoever
            walks what it made.
    """
    if text.count("[") + text.count("{") > DEEPEST:
        _refuse_deep(text)
    return json.loads(text, object_pairs_hook=_unique)


def _refuse_deep(text: str) -> None:
    depth = 0
    for step in _STEPS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(text[step.start()], 0)
        if depth > DEEPEST:
            raise TooDeepError(text.count("\n", 0, step.start()) + 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RefusedJsonError(f"the key {brief(named_twice(name for name, _ in pairs))} stands there twice")
    return values
