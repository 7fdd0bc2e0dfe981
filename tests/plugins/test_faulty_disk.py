"""Runs on a disk that is slow, hangs, fails, is full or goes away: exit 5 or the same student, never silence."""

import errno
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.distill.forks import finish, forked, lesson, weights
from tests.faulty_disk import CALLS, CAN_FUSE, Disk, faulty_disk

pytest.importorskip("mfusepy")
pytestmark = pytest.mark.skipif(not CAN_FUSE, reason="no FUSE here")
STEPS = 9
WRITES = ("create", "write", "flush", "fsync", "rename", "mkdir", "truncate")
ERRORS = (errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.ETIMEDOUT, errno.ENOTCONN)
FULL = (errno.EDQUOT, errno.ENOSPC, errno.EFBIG)


@dataclass
class Fault:
    """What happens to the disk after a step, or (step 0) as soon as the run has begun."""

    kind: str
    step: int
    what: dict[str, Any] = field(default_factory=dict)
    seconds: float = math.inf  # until the disk is sound again

    @classmethod
    def drawn(cls, dice: random.Random) -> "Fault":
        kind = dice.choice(("slow", "hangs", "fails", "fails in writing", "full", "vanishes"))
        what: dict[str, Any] = {}
        if kind == "slow":
            what = {"slow": dice.uniform(0.001, 0.005)}
        elif kind == "full":
            what = {"errno": dice.choice(FULL), "room": dice.randint(0, 60_000)}
        elif kind == "fails":
            what = {"errno": dice.choice(ERRORS), "calls": dice.sample(CALLS, dice.randint(1, len(CALLS)))}
        elif kind == "fails in writing":
            what = {"errno": dice.choice(ERRORS + FULL), "calls": [dice.choice(WRITES)]}
        elif kind == "hangs":
            return cls(kind, dice.randint(0, STEPS), {"hangs": True}, seconds=dice.uniform(0.1, 1))
        return cls(kind, dice.randint(0, STEPS), what, dice.choice((math.inf, dice.uniform(0, 0.3))))

    def befall(self, disk: Disk) -> None:
        if self.kind == "vanishes":
            disk.vanish()
        else:
            disk.fault(seconds=self.seconds, **self.what)


class Then:
    """A sink that lets it happen."""

    def __init__(self, fault: Fault, disk: Disk) -> None:
        self.fault, self.disk, self.is_done = fault, disk, False

    def emit(self, event: Any) -> None:
        if not self.is_done and event.step >= self.fault.step:
            self.is_done = True
            self.fault.befall(self.disk)

    def close(self) -> None: ...


def endure(fault: Fault, folder: Path, whole: bytes) -> int:
    """The exit code of a run that has to endure it, and that is taken up on the sound disk."""
    with faulty_disk(folder) as disk:
        code = forked(lambda: lesson(disk.path / "run", save_steps=2, sinks=[Then(fault, disk)]))
        assert code in (0, 5), code
        if fault.kind == "vanishes":
            assert code == 5 or fault.step == STEPS
        disk.fault()
        same = fault.kind == "vanishes" or code or weights(disk.path / "run") == whole
        assert same
    with faulty_disk(folder) as disk:  # as after the machine was started anew
        assert finish(disk.path / "run", whole, save_steps=2)
    return code


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The student of the run that nothing befell."""
    run = tmp_path_factory.mktemp("whole")
    assert forked(lambda: lesson(run, save_steps=2)) == 0
    return weights(run)


def test_a_disk_that_reports_an_error_only_when_a_file_is_closed_ends_the_run_with_five(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert endure(Fault("fails in writing", 3, {"errno": errno.EDQUOT, "calls": ["flush"]}), tmp_path, whole) == 5


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_runs_on_a_disk_with_drawn_faults(
    seed: int,
    whole: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("inputs", 1)
    monkeypatch.chdir(tmp_path)
    endure(Fault.drawn(random.Random(seed)), tmp_path, whole)
