"""Whole runs with a fault armed at a drawn point: what leaves the public call, and what it leaves on the disk.

    python -m tests.armed DIR COUNT SEED

Prints one JSON object: how many were tried, how often each point was armed, and what was wrong.
"""

import contextlib
import errno
import io
import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

import apt_model
from apt_model import faults
from apt_model.errors import AptModelError
from apt_model.events.runfile import read_events
from tests.distill.forks import WEIGHTS, lesson, weights

HOME = Path(apt_model.__file__).parent
ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES)
KINDS = (*map(errno.errorcode.__getitem__, ERRNOS), "MemoryError", "KeyboardInterrupt", "RuntimeError")
CHECKPOINTED = (
    "student",
    "optimizer",
    "generators",
    "state",
)  # the files of a checkpoint, each with a point of its own


STEPS, BROKEN_AT = 9, 5


class Broken:
    """A sink that breaks the run off."""

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step == BROKEN_AT:
            raise KeyboardInterrupt

    def close(self) -> None: ...


def points() -> list[str]:
    """Every fault point there is, read from the sources."""
    found: set[str] = set()
    for path in HOME.rglob("*.py"):
        found |= set(re.findall(r"(?:faults\.hit|_writing)\(f?\"([^\"]+)\"\)", path.read_text("utf-8")))
    (many,) = [name for name in found if "{" in name]
    return sorted(found - {many} | {f"{many.partition('{')[0]}{name}" for name in CHECKPOINTED})


def made(kind: str) -> BaseException:
    """The exception of a kind."""
    if kind.startswith("E"):
        number = getattr(errno, kind)
        return OSError(number, os.strerror(number))
    return {"MemoryError": MemoryError, "KeyboardInterrupt": KeyboardInterrupt, "RuntimeError": RuntimeError}[kind]()


@dataclass(frozen=True, kw_only=True)
class Armed:
    """A fault: at the `turn`-th time that a point is reached, and at so many `more` times after it."""

    point: str
    kind: str
    turn: int
    more: int
    save_steps: int
    resumed: bool

    @classmethod
    def drawn(cls, dice: random.Random) -> "Armed":
        return cls(
            point=dice.choice(points()),
            kind=dice.choice(KINDS),
            turn=dice.choice((1, 1, 2, 3, dice.randint(1, 40))),
            more=dice.choice((0, 0, 1, 10_000)),
            save_steps=dice.choice((1, 2, 3, 100)),
            resumed=dice.random() < 0.3,
        )

    def arm(self) -> None:
        seen = [0]

        def fail() -> None:
            seen[0] += 1
            if self.turn <= seen[0] <= self.turn + self.more:
                raise made(self.kind)

        faults.arm(self.point, fail)


def quietly(run: Callable[[], object]) -> BaseException | None:
    """What leaves a call."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run()
    except BaseException as error:  # noqa: BLE001 - which one it is, is the question
        return error
    return None


def wrong(armed: Armed, directory: Path, whole: bytes) -> str | None:
    """What is wrong with a run in which the fault was armed, and with the run taken up after it."""
    how = {"save_steps": armed.save_steps}
    if armed.resumed:
        quietly(lambda: lesson(directory, sinks=[Broken()], **how))
    armed.arm()
    try:
        left = quietly(lambda: lesson(directory, **how))
    finally:
        faults.disarm()
    if left is None:
        return None if is_whole(directory, whole) else "ended well, but student or record is not whole"
    if not isinstance(left, AptModelError | KeyboardInterrupt) or (
        isinstance(left, KeyboardInterrupt) and armed.kind != "KeyboardInterrupt"
    ):
        return f"raised {type(left).__name__}: {left}"
    if isinstance(left, AptModelError) and ("\n" in str(left) or not left.what):
        return f"is not one line: {left}"
    for place in re.findall(r"is kept in (.*?); start", str(left)):
        if not (Path(place) / "model.safetensors").is_file():
            return f"names a place without a student: {left}"
        shutil.rmtree(place)
    again = quietly(lambda: lesson(directory, **how))
    if again is not None:
        return f"cannot be taken up after {left!r}: {again!r}"
    return None if is_whole(directory, whole) else f"taken up after {left!r}, student or record is not whole"


def is_whole(directory: Path, whole: bytes) -> bool:
    """Whether the student is that of a run without a fault, and each step stands once in the record."""
    told = [event.step for event in read_events(directory) if event.kind == "step"]
    ended = [event.kind for event in read_events(directory)][-1] == "run_finished"
    return (
        (directory / WEIGHTS).exists() and weights(directory) == whole and told == list(range(1, STEPS + 1)) and ended
    )


def main() -> None:
    """Try drawn faults, and print what was found."""
    root, count, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    disable_progress_bar()
    quietly(lambda: lesson(root / "whole"))
    whole, tried, found = weights(root / "whole"), Counter[str](), list[dict[str, Any]]()
    for _ in range(count):
        armed = Armed.drawn(dice)
        tried[armed.point] += 1
        if (said := wrong(armed, root / "run", whole)) is not None:
            found.append({**asdict(armed), "wrong": said})
        shutil.rmtree(root / "run", ignore_errors=True)
    print(json.dumps({"tried": tried, "wrong": found}))


if __name__ == "__main__":
    main()
