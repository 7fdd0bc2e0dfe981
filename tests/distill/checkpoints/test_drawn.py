"""Resumed runs that nobody chose: hypothesis draws what they are made of, and when they are killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def drawn(directory: Path, runs: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.distill.checkpoints.drawn", str(directory), str(runs), str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=directory)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_some_runs_drawn_and_killed_end_as_those_that_nobody_killed(tmp_path: Path) -> None:
    found = drawn(tmp_path, 6, seed=1)
    assert found["lost"] == []
    assert found["resumed"] >= 6


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_hundred_runs_drawn_and_killed_end_as_those_that_nobody_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = drawn(tmp_path, 500, seed=18)
    record_property("inputs", found["resumed"])
    assert found["lost"] == []
    assert found["resumed"] >= 500
    assert found["kills"] >= 500
