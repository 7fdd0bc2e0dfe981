"""The scripts that show what a move of modules has changed: the structure in figures, and the same lessons twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.same_lessons import differences

HOME = Path(__file__).parent.parent.parent


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(HOME / "scripts" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HOME).stdout


def test_the_figures_of_this_checkout_are_those_that_the_house_promises() -> None:
    rows = {line[:36].strip(): line[36:].strip() for line in run("house_figures.py", str(HOME)).splitlines()}
    assert rows["folders that import each other"] == "0"
    assert rows["signatures over 8 not public"] == "0"
    assert rows["class names defined more than once"] == "0"
    assert int(rows["modules"]) > 150


def test_lessons_are_compared_only_when_both_checkouts_are_given() -> None:
    assert "BEFORE" in run("same_lessons.py", "--help")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"a": 1}, {"a": 1}, 0),
        ({"a": 1}, {"a": 1.5}, 1),
        ({"a": [1, 2]}, {"a": [1]}, 1),
        ({"a": 1}, {}, 1),
        ({}, {"new": 1}, 0),
        ({}, {"other": 1}, 1),
    ],
)
def test_a_difference_is_told_unless_the_newer_side_may_add_it(before: object, after: object, said: int) -> None:
    assert bool(list(differences(before, after, "state", lambda key: key.endswith("new")))) == bool(said)
