"""Several processes at one run directory: one writes, whatever stands in its lock, and the others are told."""

import errno
import fcntl
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.errors import StorageError
from apt_model.events.runfile import EVENTS, RunFile, read_events
from apt_model.storage import one_writer
from tests.distill.forks import forked, lesson, weights

HOLDER = ".lock-holder"


def together(count: int, action: Callable[[int], None]) -> list[int]:
    """Do it in several processes that begin at one moment; how each ended."""
    start, children = time.monotonic() + 0.05, []
    for turn in range(count):
        child = os.fork()
        if not child:
            code = 1
            try:
                while time.monotonic() < start:
                    pass
                action(turn)
                code = 0
            except StorageError:
                code = 5
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def race(run: Path, dice: random.Random) -> None:
    """Several take the lock at once, and hold it for a drawn time: no two at one time."""
    waits = [dice.uniform(0, 0.002) for _ in range(4)]

    def hold(turn: int) -> None:
        time.sleep(waits[turn])
        with one_writer(run):
            os.close(os.open(run / "inside", os.O_CREAT | os.O_EXCL))  # fails where another is inside
            time.sleep(waits[-1 - turn])
            (run / "inside").unlink()

    ended = together(4, hold)
    assert set(ended) <= {0, 5}
    assert 0 in ended
    assert not (run / HOLDER).exists()


def test_of_processes_that_begin_at_one_moment_one_writes(tmp_path: Path) -> None:
    dice = random.Random(1)
    for _ in range(20):
        race(tmp_path, dice)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_four_thousand_processes_never_two_write_at_once(tmp_path: Path) -> None:
    dice = random.Random(2)
    for _ in range(1_000):
        race(tmp_path, dice)


def test_of_lessons_that_begin_at_one_moment_one_is_taught_and_its_record_is_whole(tmp_path: Path) -> None:
    forked(lambda: lesson(tmp_path / "alone"))
    ended = together(3, lambda turn: lesson(tmp_path / "run"))
    assert sorted(ended) == [0, 5, 5]
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    told = [event.step for event in read_events(tmp_path / "run") if event.kind == "step"]
    assert told == list(range(1, len(told) + 1))


def test_a_run_cannot_be_taken_up_while_it_is_trained_but_it_can_be_read(tmp_path: Path) -> None:
    run, seen = tmp_path / "run", []

    class Second:
        def emit(self, event: Any) -> None:
            if event.kind == "step" and event.step == 3:
                seen.append(forked(lambda: lesson(run)))
                seen.append(len([one for one in read_events(run) if one.kind == "step"]))

        def close(self) -> None: ...

    lesson(run, sinks=[Second()])
    assert seen == [5, 3]
    assert next(reversed([event.kind for event in read_events(run)])) == "run_finished"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (b"4711", "process 4711"),
        (b"\xff\xfe\x00", "another process"),
        (b"9" * 10**6, "another process"),
        (b"", "another process"),
        ("４７".encode(), "another process"),
        (b"1; rm -rf /\n", "another process"),
        (None, "another process"),
    ],
)
def test_whatever_the_holder_of_a_lock_has_written_the_second_is_refused_in_one_line(
    written: bytes | None, named: str, tmp_path: Path
) -> None:
    descriptor = os.open(tmp_path / ".lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if written is not None:
        (tmp_path / HOLDER).write_bytes(written)
    with pytest.raises(StorageError) as caught, one_writer(tmp_path):
        raise AssertionError("two hold it")
    assert str(caught.value).startswith(f"run directory {tmp_path} is being written; got {named[:200]}. Fix: wait")
    os.close(descriptor)
    with one_writer(tmp_path):
        assert (tmp_path / HOLDER).read_text() == str(os.getpid())


def test_what_a_killed_run_left_in_its_lock_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"\0" * 5000)
    (tmp_path / HOLDER).write_text("1")  # a process that lives, and is another
    with one_writer(tmp_path):
        pass
    assert not (tmp_path / HOLDER).exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.EROFS])
def test_a_disk_that_cannot_lock_is_refused_in_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="cannot be written; got") as caught, one_writer(tmp_path):
        raise AssertionError("held without a lock")
    assert "\n" not in str(caught.value)


def test_a_directory_removed_under_the_lock_does_not_spoil_its_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with one_writer(run):
        run.rename(tmp_path / "moved")
        run.mkdir()
        (run / HOLDER).write_text("theirs")
    assert (run / HOLDER).read_text() == "theirs"
    with one_writer(run):
        (run / HOLDER).unlink()
        run.rename(tmp_path / "again")
        run.write_text("a file")


def test_a_child_that_outlives_a_killed_run_does_not_hold_its_lock(tmp_path: Path) -> None:
    """As a worker of a DataLoader does for some seconds."""
    held, told = os.pipe()

    def run() -> None:
        with one_writer(tmp_path):
            child = os.fork()
            if not child:
                time.sleep(30)
                os._exit(0)
            os.write(told, f"{child}\n".encode())
            time.sleep(30)

    parent = os.fork()
    if not parent:
        run()
        os._exit(0)
    child = int(os.read(held, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        with one_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_record_that_a_second_one_writes_to_is_told_of(tmp_path: Path) -> None:
    """Where locks are worth nothing, as on some network disks."""
    record = RunFile(tmp_path)
    other = (tmp_path / EVENTS).open("ab", buffering=0)
    other.write(b"{}\n")
    with pytest.raises(StorageError, match=r"no longer what this run has written; got 3 bytes, where 0 were written"):
        record.check()
    record.close()
    other.close()


torch.set_num_threads(1)
