"""JSON as a browser takes it, and nothing that only Python's reader takes."""

import json
import math
from typing import Any


def strict_json(text: bytes) -> Any:
    """The value of a text; fails on what is not UTF-8, on NaN, and on numbers that are infinite in a browser."""
    return json.loads(text.decode("utf-8"), parse_constant=_none, parse_float=_finite, parse_int=_finite)


def _none(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    assert math.isfinite(number), text[:40]
    return int(text) if text.lstrip("-").isdigit() else number
