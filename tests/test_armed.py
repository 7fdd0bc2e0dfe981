"""Faults armed at drawn points of whole runs: what leaves a public call is one of ours, and nothing is lost."""

import ast
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.armed import HOME, Armed, points, quietly, wrong
from tests.distill.forks import lesson, weights

WRITES = {
    "mkdir",
    "rename",
    "replace",
    "unlink",
    "rmtree",
    "truncate",
    "fsync",
    "write_bytes",
    "write_text",
    "_write_text",
}
WRITES |= {"TemporaryFile", "acquire"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The student of a run without a fault."""
    directory = tmp_path_factory.mktemp("whole")
    assert quietly(lambda: lesson(directory)) is None
    return weights(directory)


def armed(root: Path, count: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.armed", str(root), str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_leaves_a_run_with_a_fault_is_one_of_ours_and_the_run_can_be_taken_up(
    seed: int, whole: bytes, tmp_path: Path
) -> None:
    assert wrong(Armed.drawn(random.Random(seed)), tmp_path / "run", whole) is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_hundred_faults_at_drawn_points_and_turns(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", 300)
    found = Counter[str]()
    for seed in (11, 12):
        (tmp_path / str(seed)).mkdir()
        tried = armed(tmp_path / str(seed), 150, seed)
        assert tried["wrong"] == []
        found.update(tried["tried"])
    assert set(found) == set(points())


@pytest.mark.parametrize(
    "example",
    [
        ("record.write", "MemoryError", 19, 10_000, 1),  # closed, then asked for its length
        ("record.check", "MemoryError", 3, 0, 2),
        ("record.cut", "EROFS", 1, 0, 2),
        ("checkpoint.list", "MemoryError", 2, 10_000, 2),
        ("lock.release", "KeyboardInterrupt", 1, 1, 3),  # stayed locked
        ("lock.acquired", "KeyboardInterrupt", 1, 0, 2),
        ("record.line", "MemoryError", 4, 0, 1),  # an event that never reached the record, and exit 0
        ("whole.between_renames", "EIO", 1, 0, 2),
    ],
    ids=lambda one: "-".join(map(str, one)),
)
def test_a_fault_that_was_wrong_once(example: tuple[Any, ...], whole: bytes, tmp_path: Path) -> None:
    how = dict(zip(("point", "kind", "turn", "more", "save_steps"), example, strict=True))
    assert wrong(Armed(**how, resumed=False), tmp_path / "run", whole) is None


def writers(source: str) -> dict[str, bool]:
    """The functions that change something on the disk, and whether a fault can be armed within."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
            names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
            if names & WRITES:
                found[node.name] = bool(names & {"hit", "_writing", "_listed", "snapshots"})
    return found


def test_every_place_that_writes_has_a_fault_point() -> None:
    assert writers("def f(path):\n    path.unlink()") == {"f": False}
    found: dict[str, bool] = {}
    for name in ("storage.py", "events/runfile.py", "plugins/session.py"):
        found |= writers((HOME / name).read_text("utf-8"))
    inside = {"_write_text", "json_writer", "sync", "_append"}  # called by those that have one, or has one itself
    assert {name for name, has in found.items() if not has} <= inside
    assert len(found) >= 9
