"""Several processes teach what one does, to the byte; killed or stopped, they go on as if nobody had."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distill import lost_ranks


def taught(ranks: int, asked: dict[str, Any], said: Path, *, code: int = 0) -> str:
    """The hash of the student that so many processes teach."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    run = [sys.executable, *launch, "-m", "tests.distill.worlds", json.dumps(asked), said]
    ended = subprocess.run(run, capture_output=True, text=True, check=False, timeout=300)
    assert (ended.returncode == 0) == (code == 0), ended.stderr[-3000:]
    return said.read_text() if code == 0 else ended.stderr


def accumulating(batches: int, **asked: Any) -> dict[str, Any]:
    return {**asked, "settings": {**asked.get("settings", {}), "gradient_accumulation_steps": batches}}


def test_two_processes_teach_to_the_byte_what_one_does_that_accumulates_two_batches(tmp_path: Path) -> None:
    assert taught(2, {}, tmp_path / "2") == taught(1, accumulating(2), tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("data", ["mapped", "shuffled", "generator", "workers", "stream", "list"])
@pytest.mark.parametrize("settings", [{}, {"hidden_weight": 0.5, "attention_weight": 0.5}], ids=["last", "inner"])
def test_worlds_of_any_size_have_one_order_of_data_and_end_alike(
    tmp_path: Path, ranks: int, data: str, settings: dict[str, Any]
) -> None:
    asked = {"data": data, "rows": 29 + ranks, "settings": settings}
    assert taught(ranks, asked, tmp_path / "n") == taught(1, accumulating(ranks, **asked), tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize("data", ["shuffled", "workers", "stream"])
@pytest.mark.parametrize(
    "signal", [{"SIGKILL": [1, 5]}, {"SIGKILL": [0, 7]}, {"SIGTERM": [1, 5]}, {"SIGTERM": [0, 11]}]
)
def test_a_run_of_two_ranks_that_was_cut_goes_on_to_the_same_student(
    tmp_path: Path, data: str, signal: dict[str, Any]
) -> None:
    asked = {"data": data, "dropout": 0.1, "settings": {"save_steps": 3}}
    whole = taught(2, {**asked, "run": str(tmp_path / "whole")}, tmp_path / "w")
    cut = {**asked, "run": str(tmp_path / "cut")}
    taught(2, {**cut, "signals": signal}, tmp_path / "c", code=1)
    assert taught(2, {**cut, "resume": True}, tmp_path / "c") == whole


@pytest.mark.slow
def test_another_number_of_processes_is_refused_by_name_or_taken_anyway(tmp_path: Path) -> None:
    asked = {"run": str(tmp_path / "cut"), "settings": {"save_steps": 3}}
    taught(2, {**asked, "signals": {"SIGTERM": [0, 5]}}, tmp_path / "c", code=1)
    again = accumulating(2, **{**asked, "resume": True})
    assert "processes: 2 then, 1 now" in taught(1, again, tmp_path / "c", code=2)
    whole = taught(1, accumulating(2), tmp_path / "w")
    assert taught(1, {**again, "anyway": True}, tmp_path / "c") == whole, "without dropout even this is the same"


@pytest.mark.slow
def test_ranks_killed_at_drawn_moments_lose_nothing(tmp_path: Path) -> None:
    assert lost_ranks.main(tmp_path, 10, 19) == 0
