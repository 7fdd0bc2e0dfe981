"""The history of a run, downsampled for a page: bounded memory for a record of any length.

Of each stretch of steps it keeps those with the lowest and highest loss and the highest gradient norm; of cards the
laziest and the least lazy; of other events one per stretch, of readings one of unseen and one of learned rows. The
first, the last and those with NaN or infinity stay.
Knows the fields that it compares; knows nothing of files or browsers.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from apt_model.dashboard.tail import Line
from apt_model.dashboard.thinning import Criterion, Record, Thinned
from apt_model.events.runfile import encode, within_limit

STEPS, CARDS, OTHERS = 1_200, 200, 512  # buckets; up to three steps and two cards in one
OTHERS_BYTES = 600_000
PAGE_BYTES = 12_000_000
ALWAYS = ("run_started", "run_finished")


def highest(key: str) -> Criterion:
    """Prefers the larger value; a non-finite one (recorded as null) is preferred to all."""

    def score(record: Record) -> float:
        value = record.get(key)
        return (
            value if isinstance(value, int | float) else math.inf if key in record.get("nonfinite", ()) else -math.inf
        )

    return score


def lowest(key: str) -> Criterion:
    """Prefers the smaller value."""

    def score(record: Record) -> float:
        value = record.get(key)
        return -value if isinstance(value, int | float) else -math.inf

    return score


def latest(record: Record) -> float:
    """Prefers the latest record: all score the same, and ties go to the later one."""
    return 0.0


class History:
    """A bounded selection of the lines of a record.

    Attributes:
        steps: optimizer steps done.
        finished: whether the last event is the end of the run.
    """

    def __init__(self) -> None:
        self.steps, self.finished = 0, False
        self._kinds = {
            "step": Thinned(STEPS, (lowest("loss"), highest("loss"), highest("grad_norm"))),
            "card": Thinned(CARDS, (lowest("laziness"), highest("laziness"))),
        }
        self._always: dict[int, bytes] = {}
        self._light: dict[int, bytes] = {}

    def add(self, lines: Iterable[Line]) -> None:
        """Add lines of the record, in order; lines that are not events are left out."""
        for place, line in lines:
            try:
                record = json.loads(line)
                line = within_limit(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                self._take(place, record, line)

    def _take(self, place: int, record: Record, line: bytes) -> None:
        kind = record.get("kind")
        step = record.get("step")
        self.steps = max(self.steps, step) if isinstance(step, int) else self.steps
        self.finished = kind == "run_finished"
        if kind in ALWAYS:
            self._always[place] = line
            return
        name = f"{kind} {record.get('unseen') is True}" if kind == "reading" else str(kind)
        kept = self._kinds.get(name)
        if kept is None:
            kept = self._kinds[name] = Thinned(OTHERS, (latest,), largest=OTHERS_BYTES)
        kept.add(place, record, line)

    def lines(self, *, largest: int = PAGE_BYTES) -> list[bytes]:
        """The selected lines, in order, in about `largest` bytes at most.

        If they are larger, cards and report cards lose their details (tokens; validation texts), evenly over the run;
        the newest keeps them.
        """
        kept = dict(self._always)
        for thinned in self._kinds.values():
            kept |= thinned.kept()
        heavy = sorted(place for name in ("card", "epoch_finished") for place in self._places(name))
        stride, size = 1, sum(map(len, kept.values()))
        while size > largest and stride < 2 * len(heavy):
            stride *= 2
            for index, place in enumerate(reversed(heavy)):
                if index % stride:
                    whole = kept[place]
                    kept[place] = self._lighter(place, whole)
                    size += len(kept[place]) - len(whole)
        self._light = {place: line for place, line in self._light.items() if place in kept}
        return [line for _, line in sorted(kept.items())]

    def _places(self, name: str) -> Iterable[int]:
        return self._kinds[name].kept() if name in self._kinds else ()

    def _lighter(self, place: int, line: bytes) -> bytes:
        if place not in self._light:
            self._light[place] = encode(_without_details(json.loads(line)))
        return self._light[place]


def _without_details(record: Mapping[str, Any]) -> dict[str, Any]:
    light = {key: value for key, value in record.items() if key != "detail"}
    if isinstance(record.get("validation"), dict):
        light["validation"] = {**record["validation"], "pairs": []}
    return light
