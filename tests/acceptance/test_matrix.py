"""The matrix names only tests that there are, and the page is made of what they and the peers did."""

import ast
import json
from pathlib import Path

import pytest

from tests.acceptance import __main__ as acceptance
from tests.acceptance.matrix import FAULTS
from tests.acceptance.peers import __main__ as peers
from tests.acceptance.peers.cases import CASES
from tests.acceptance.runs import ALSO_FUZZED

TESTS = Path(__file__).parents[1]


def functions(file: str) -> set[str]:
    """The tests of a file."""
    return {
        node.name for node in ast.parse((TESTS / file).read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
    }


def test_every_test_that_is_named_is_there() -> None:
    named = {test for fault in FAULTS for test in fault.tests} | set(ALSO_FUZZED)
    files = {test.partition("::")[0] for test in named}
    there = {f"{file}::{name}" for file in files if (TESTS / file).is_file() for name in functions(file)}
    assert len(named) > 90
    assert named - there == set()


def test_every_fault_has_one_number_and_a_test_and_every_case_of_a_peer_has_its_fault() -> None:
    numbers = [fault.number for fault in FAULTS]
    assert numbers == sorted(set(numbers))
    assert [fault.number for fault in FAULTS if not fault.tests] == []
    assert {case.number for case in CASES.values()} <= set(numbers)


def test_a_peer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers.main(["rich_escapes", str(tmp_path)])
    assert "passed raw" in json.loads(capsys.readouterr().out)["found"]


def test_the_page_says_how_each_test_ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (fault,) = (fault for fault in FAULTS if fault.number == 23)
    (test,) = fault.tests
    monkeypatch.setattr(acceptance, "run_tests", lambda ids, place: ({test: ["passed", "failure"]}, {test: 7}))
    monkeypatch.setattr(acceptance, "run_peer", lambda case, place: f"what {case} | did")
    acceptance.main(["--only", "23"])
    told = capsys.readouterr().out
    assert "| 23 | SIGTERM: step finished, saved, 143 | ❌ 1/2 [" in told
    assert "| 7 | **HF Trainer**: what sigterm \\| did |" in told
    assert "1 of 2 tests passed." in told


@pytest.mark.slow
def test_the_tests_of_a_fault_and_its_peers_are_run_in_processes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TESTS.parent)
    acceptance.main(["--only", "38"])
    told = capsys.readouterr().out
    assert "❌" not in told
    assert "**HF Trainer**: {'max_steps': 0" in told
