"""Interleaved timing: in every round each contender runs once, in rotating order.

A drift of the machine's speed then affects all alike, and each contender is compared within its own round.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, kw_only=True)
class Lap:
    """Seconds that one turn took: CPU time of all threads, the part of it in the kernel, and wall time."""

    cpu: float
    kernel: float
    wall: float


def lap(turn: Callable[[], None]) -> Lap:
    """Run `turn` once and time it."""
    before, wall = os.times(), time.perf_counter()
    cpu = time.process_time()
    turn()
    cpu, wall, after = time.process_time() - cpu, time.perf_counter() - wall, os.times()
    return Lap(cpu=cpu, kernel=after.system - before.system, wall=wall)


def interleaved(
    contenders: Mapping[str, Callable[[], None]], rounds: int, *, seconds: float = inf
) -> dict[str, list[Lap]]:
    """A lap of every contender in each round; the caller has warmed them up.

    No round is begun once `seconds` have passed, but the first.
    """
    laps: dict[str, list[Lap]] = {name: [] for name in contenders}
    names, started = list(contenders), time.perf_counter()
    for round_number in range(rounds):
        if round_number and time.perf_counter() - started > seconds:
            break
        start = round_number % len(names)
        for name in names[start:] + names[:start]:
            laps[name].append(lap(contenders[name]))
    return laps


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median (lower to upper quartile)`."""
    low, middle, high = quartiles(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
