"""What a run meets around it: a clock that jumps, memory that runs out in a save, strange names of its directory."""

import os
import random
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from apt_model import faults
from apt_model.commands.console import importing
from apt_model.errors import AptModelError, StorageError
from apt_model.events.runfile import EVENTS, check_run_directory, read_events
from apt_model.storage import newest_snapshot
from tests.distill.forks import forked, lesson, weights

NAMES = [
    "CON",
    "nul.txt",
    "trailing.",
    " lead",
    "a:b",
    "a*b?",
    "-dash",
    "n\nl",
    "e\u0301",
    "\u00e9",
    "\ud800",
    "\0",
    "x" * 300,
]
NAMES += ["y" * 255, "z" * 200 + "/" + "z" * 200, "~", "$HOME", "%TEMP%", "\u202ename", "RUN", "run", "", "."]


@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_jumps_changes_no_duration_no_order_and_no_student(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson(tmp_path / "steady")
    dice, real, ahead = random.Random(seed), time.time, [0.0]

    def jumping() -> float:
        ahead[0] += dice.choice((0, 0, -3600, 3600 * 24 * 365, -3600 * 24 * 400))
        return real() + ahead[0]

    started = time.monotonic()
    monkeypatch.setattr(time, "time", jumping)
    lesson(tmp_path / "run")
    took = time.monotonic() - started
    events: list[Any] = list(read_events(tmp_path / "run"))
    assert weights(tmp_path / "run") == weights(tmp_path / "steady")
    assert [one.step for one in events if one.kind == "step"] == list(range(1, 10))
    lasted = [getattr(one, name) for one in events for name in ("seconds", "step_seconds") if hasattr(one, name)]
    assert len(lasted) > 9
    assert all(0 <= seconds <= took for seconds in lasted)


@pytest.mark.parametrize("point", ["begin", "after_student", "after_optimizer", "after_state", "before_rename"])
def test_memory_that_runs_out_in_a_save_is_one_line_and_the_checkpoint_before_stays(
    point: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def no_more() -> None:
        seen.append(point)
        if len(seen) == 3:
            resource.setrlimit(resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))  # not one page
            bytearray(2**27)

    def run() -> None:
        faults.arm(f"checkpoint.{point}", no_more)
        lesson(tmp_path / "run")

    forked(lambda: lesson(tmp_path / "whole"))
    capfd.readouterr()
    assert forked(run) in (4, 5)
    said = capfd.readouterr().err
    assert said.count("error[") == 1
    assert "Traceback" not in said
    newest, skipped = newest_snapshot(tmp_path / "run" / "checkpoints")
    assert (newest and newest.name, skipped) == ("step-00000002", [])
    assert forked(lambda: lesson(tmp_path / "run")) == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_run_directory_of_any_name_can_be_written_or_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = "already holds a run"
    with suppress(StorageError):  # then it is refused again below
        said = "cannot be written; got"
        (check_run_directory(name) / EVENTS).touch()
        said = "already holds a run"
    with pytest.raises(StorageError, match=said) as caught:
        check_run_directory(name)
    assert "\n" not in str(caught.value)


def test_a_current_directory_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")  # noqa: PTH106
    with pytest.raises(AptModelError, match="the current directory cannot be read; got No such file"):
        importing("en")
    monkeypatch.chdir(tmp_path)
