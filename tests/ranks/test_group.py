"""Processes of a run agree, go in order, and leave together."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from apt_model.errors import ConfigError, DataError
from apt_model.ranks.broken import is_of_connection
from apt_model.ranks.group import Ranks, ranks
from apt_model.ranks.place import NAMES, NAMES_OF_SLURM, Place, alone, place, share_place
from apt_model.ranks.store import free_port, seconds_of
from tests.ranks.failures import FAULTS, PATIENCE

SCRIPT = """
import json, os, signal, sys, time
from apt_model.errors import AptModelError, DataError
from apt_model.ranks.group import ranks

run, found = ranks(), {}
try:
    with run.session(patience=5):
        found["values"] = run.gather({"rank": run.rank}, "say the rank")
        with run.first("cache"):
            if run.is_first:
                time.sleep(0.3)
                open(sys.argv[1] + "/cache", "w").close()
            found["cached"] = os.path.exists(sys.argv[1] + "/cache")
        try:
            with run.agreed("validate"):
                if run.rank == 1:
                    raise DataError("bad row", got="x", fix="mend it")
        except AptModelError as error:
            found["agreed"] = [type(error).__name__, error.exit_code, str(error)]
        if run.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        run.gather(None, "wait for one who will not come")
except AptModelError as error:
    found["lost"] = [error.code, error.exit_code, str(error)]
open(f"{sys.argv[1]}/{run.rank}", "w").write(json.dumps(found))
"""


def test_alone_every_call_does_nothing() -> None:
    alone = Ranks(Place(0, 1))
    with alone.session(), alone.first("a"), alone.agreed("b"):
        assert alone.is_first
        assert alone.gather(3, "c") == [3]
    with pytest.raises(DataError), alone.agreed("d"):
        raise DataError("as it was")


def test_several_processes_that_cannot_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="this is process 1 of 2, but where they meet is not known"):
        ranks().gather(1, "something")


@pytest.mark.parametrize("said", ["soon", "0", "-1", "inf", "nan"])
def test_a_patience_that_is_no_number_of_seconds_is_refused(said: str) -> None:
    name = "APT_RANK_PATIENCE"
    assert seconds_of({}, name, 15.0) == PATIENCE
    assert seconds_of({name: "4"}, name, 15.0) == 4
    with pytest.raises(ConfigError, match=name):
        seconds_of({name: said}, name, 15.0)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of no launcher, and as it was afterwards."""
    for name in (*NAMES, *NAMES_OF_SLURM, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nobody")
def test_tasks_of_slurm_are_ranks_where_they_know_where_to_meet_and_torch_hears_of_it() -> None:
    os.environ.update({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "MASTER_ADDR": "here"})
    assert place() == Place(0, 1)  # a batch script itself, beside its steps
    os.environ |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1"}
    assert place() == Place(1, 2)
    share_place()
    assert [os.environ[name] for name in (*NAMES, "MASTER_PORT")] == ["1", "2", "1", "29500"]
    assert alone(os.environ).keys() >= {"MASTER_ADDR"}
    assert not {*NAMES, *NAMES_OF_SLURM} & alone(os.environ).keys()


@pytest.mark.usefixtures("nobody")
def test_numbers_of_a_launcher_that_name_no_process_are_refused() -> None:
    os.environ |= {"RANK": "4", "WORLD_SIZE": "4"}
    with pytest.raises(ConfigError, match="name no process; got RANK=4, WORLD_SIZE=4"):
        place()


@pytest.mark.enable_socket
def test_two_processes_agree_and_a_killed_one_is_named(tmp_path: Path) -> None:
    port, started = str(free_port()), []
    for rank in (0, 1):
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, tmp_path], env={**os.environ, **place}, stderr=subprocess.PIPE
            )
        )
    outputs = [one.communicate(timeout=60)[1].decode() for one in started]
    assert [one.returncode for one in started] == [0, -9], outputs
    found = json.loads((tmp_path / "0").read_text())
    assert found["values"] == [{"rank": 0}, {"rank": 1}]
    assert found["cached"]
    assert found["agreed"] == ["DataError", 3, "rank 1: bad row; got x. Fix: mend it."]
    code, number, line = found["lost"]
    assert (code, number) == ("RANK", 6)
    assert f"pid {started[1].pid}) did not come to step 1: its process has ended. Fix: " in line
    assert "reset by peer" not in "".join(outputs)


EXPECTED = {  # the exit code of those who outlive the fault, by rank, and what their lines have in common
    "none": ({"0": "0", "1": "0"}, ""),
    "killed": ({"0": "6"}, "its process has ended"),
    "first killed": ({"1": "6"}, "its process has ended"),
    "stopped": ({"0": "6"}, "no sign for 1"),
    "stalled in teacher": ({"0": "6", "1": "6"}, "stuck in teacher"),
    "stalled in forward": ({"0": "6", "1": "6"}, "stuck in forward"),
    "stalled in data": ({"0": "6", "1": "6"}, "stuck in data"),
    "stalled in save": ({"0": "6", "1": "6"}, "stuck in save"),
    "exception": ({"0": "1", "1": "1"}, "RuntimeError: a bug"),
    "disk full": ({"0": "5", "1": "5"}, "cannot be written"),
    "bad validation data": ({"0": "3", "1": "3"}, "1"),
    "NaN": ({"0": "4", "1": "4"}, "not finite"),
    "launcher killed": ({"0": "6", "1": "6"}, "the launcher"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_all_ranks_leave_soon_with_one_line_and_one_code(fault: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.ranks.failures", tmp_path / "try", fault],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    codes, words = EXPECTED[fault]
    for rank, code in codes.items():
        assert found["codes"][rank].startswith((code, f"exitcode  : {code} ")), found
        assert fault == "none" or (len(found["lines"][rank]) == 1 and words in found["lines"][rank][0]), found
        assert fault == "none" or found["seconds"][rank] < 30, found
    assert found["says reset"] == []
    assert time.monotonic() - begun < 150


@pytest.mark.timeout(10)
def test_causes_that_go_in_a_circle_are_followed_once() -> None:
    one, two = ValueError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert not is_of_connection(one)
    two.__cause__ = RuntimeError("Connection reset by peer")
    assert is_of_connection(one)
