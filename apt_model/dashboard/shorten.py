"""Shortening of events that are too large to send. Knows nothing of kinds of events."""

import json
from collections.abc import Mapping
from typing import Any

from apt_model.events.runfile import encode

LARGEST = 64 * 1024
CUTS = (1_000, 200, 40)  # characters of a text, entries of a list


def shorten(line: bytes) -> bytes:
    """The line unchanged up to 64 KB; else its event with texts and lists cut, and `"truncated": true`.

    Raises:
        ValueError: the line is too long and not JSON.
    """
    if len(line) <= LARGEST:
        return line
    record = json.loads(line)
    for cut in CUTS:
        shorter = encode({**_cut(record, cut), "truncated": True})
        if len(shorter) <= LARGEST:
            return shorter
    plain = {key: value for key, value in record.items() if isinstance(value, int | float) or key in ("kind", "run_id")}
    return encode({**_cut(plain, CUTS[-1]), "truncated": True})


def _cut(value: Any, cut: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= cut else value[:cut] + "…"
    if isinstance(value, list):
        return [_cut(item, cut) for item in value[:cut]]
    if isinstance(value, Mapping):
        return {key: _cut(item, cut) for key, item in list(value.items())[:cut]}
    return value
