"""A run that is killed, or finds no room, is not lost: real signals and real limits, in forked processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.distill.forks import POINTS


def forks(*arguments: object, **more: Any) -> Any:
    command = [sys.executable, "-m", "tests.distill.forks", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as here:  # where a student may be kept whose run has no room
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=here, **more)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_kill_at_any_point_of_a_save_loses_nothing_and_what_was_left_half_is_named(tmp_path: Path) -> None:
    found = forks("points", tmp_path)
    assert list(found) == list(POINTS)
    for point, case in found.items():
        assert case["ended"] == -9, point
        assert case["same"], point
        assert case["named"] == case["left"], point
        assert len(case["left"]) == (point not in ("after_rename", "end")), point


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    found = forks("times", tmp_path, 50)
    assert found["lost"] == []
    assert found["runs"] == 50
    assert found["kills"] >= 50


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_long_run_killed_again_and_again_ends_the_same_with_one_record_and_bounded_memory(tmp_path: Path) -> None:
    found = forks("soak", tmp_path, 2000)
    assert found["same"]
    assert found["kills"] >= 15
    assert found["lines"]["broken"] == found["lines"]["whole"]
    assert found["kept"] <= 3
    first, *later = [reading for reading in found["gauge"] if reading["step"] >= 200]
    assert max(reading["rss_kib"] for reading in later) - first["rss_kib"] < 20 * 1024
    assert max(reading["files"] for reading in later) <= first["files"]


def test_a_file_that_may_not_grow_is_one_line_with_what_is_needed_and_the_checkpoint_before_stays(
    tmp_path: Path,
) -> None:
    found = forks("full", tmp_path, 13_000)
    assert found["code"] == 5
    assert "error[STORAGE]: checkpoint of step 3 cannot be written" in found["line"]
    assert "File too large" in found["line"]
    assert "expected about 82,996 bytes of free space" in found["line"]  # 3 * 5,820, and 64 KiB for what is no weight
    assert f"Last good checkpoint: step 2 ({tmp_path}/run/checkpoints/step-00000002)" in found["line"]
    assert found["after"] == found["before"] == ["step-00000001", "step-00000002"]
    assert found["same"]


def test_a_record_that_may_not_grow_ends_the_run_with_a_checkpoint_and_nothing_is_missing_from_it(
    tmp_path: Path,
) -> None:
    found = forks("record", tmp_path, 80_000)
    assert found["code"] == 5
    (line,) = found["line"].strip().splitlines()
    assert "events.jsonl cannot be written; got File too large" in line
    newest = found["after"][-1]
    assert f"Last good checkpoint: step {int(newest[-8:])} ({tmp_path}/run/checkpoints/{newest})" in line
    assert int(newest[-8:]) % 20, "the step that the record was lost at, not the one that was kept anyway"
    assert found["same"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 1 MiB, where we may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(small_disk: Path) -> None:
    found = forks("disk", small_disk)
    assert found["code"] == 5
    assert "No space left on device" in found["line"]
    assert found["after"] == found["before"] == ["step-00000001", "step-00000002"]
    assert found["same"]


@pytest.mark.slow
def test_however_little_room_there_is_a_run_says_one_line_and_leaves_whole_checkpoints(small_disk: Path) -> None:
    *short, enough = forks("rooms", small_disk, 8192)["runs"]
    assert (enough["code"], enough["said"]) == (0, "")
    told = set()
    for run in short:
        assert run["code"] == 5
        (line,) = run["said"].splitlines()
        assert "No space left on device" in line
        assert run["left"] == []
        assert run["newest"] is None or f"Last good checkpoint: step {int(run['newest'][-8:])} (" in line
        told.add(line.split()[1] + " " + line.split()[2])
    assert told == {"run directory", "the record", "checkpoint of", "the trained"}
