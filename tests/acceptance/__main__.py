"""Run the acceptance matrix and write docs/reliability.md: our tests of every fault, and what peers do under it.

    python -m tests.acceptance                  # some minutes
    python -m tests.acceptance --only 18 52     # two faults: printed, not written
    python -m tests.acceptance --reports A.xml B.xml   # our results from pytest runs with --junitxml, not run again

Nothing in the table is written by hand: a test passed or it did not, a peer's words come from a process of its own.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from tests.acceptance.fault import Fault
from tests.acceptance.matrix import FAULTS
from tests.acceptance.peers.cases import CASES
from tests.acceptance.runs import ALSO_FUZZED

PAGE = Path("docs/reliability.md")
LIMITS = Path(__file__).with_name("limits.md")  # what cannot be promised, in words: the end of the page
PACKAGES = ("torch", "transformers", "trl", "accelerate", "rich", "hypothesis", "pytest")
HEAD = """# What it withstands

Made by `python -m tests.acceptance` ({versions}).
The numbers are those of the acceptance matrix. *Ours* is the result of the tests named, run for this page: tests
passed, and how many inputs were tried where they are made up. *Peers* is what installed trainers did, each case
in a process of its own (`tests/acceptance/peers`).

| # | case | ours | inputs tried | peers |
|---|---|---|---|---|
"""


def run_tests(ids: Iterable[str], place: Path) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Outcomes by "file::function" of every case of each test, and how many inputs were made up for it.

    Counted by hypothesis, or by the test itself: `record_property("inputs", count)`.
    """
    report = place / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", "--hypothesis-show-statistics"]
    command += [f"--junitxml={report}", "-o", "junit_family=xunit1", *(f"tests/{one}" for one in ids)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    outcomes, tried = read_report(report)
    name = ""
    for line in done.stdout.splitlines():
        if found := re.match(r"tests/(\S+?::\w+)(\[.*)?:$", line):
            name = found[1]
        elif found := re.search(r"(\d+) passing, (\d+) failing", line):
            tried[name] = tried.get(name, 0) + int(found[1]) + int(found[2])
    return outcomes, tried


def read_report(report: Path) -> tuple[dict[str, list[str]], dict[str, int]]:
    """As `run_tests`, of a pytest run that has been: from its `--junitxml` file, family xunit1."""
    outcomes: dict[str, list[str]] = {}
    tried: dict[str, int] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('file', '').removeprefix('tests/')}::{case.get('name', '').partition('[')[0]}"
        bad = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        outcomes.setdefault(name, []).append(bad[0] if bad else "passed")
        for counted in case.iterfind("properties/property[@name='inputs']"):
            tried[name] = tried.get(name, 0) + int(counted.get("value", 0))
    return outcomes, tried


def in_halves(ids: Sequence[str], place: Path, pool: ThreadPoolExecutor) -> tuple[dict[str, list[str]], dict[str, int]]:
    """`run_tests` in two processes at a time, each with every other file of tests."""
    files = list(dict.fromkeys(one.partition("::")[0] for one in ids))
    places = [place / name for name in ("first", "second")]
    for one in places:
        one.mkdir()
    halves = [[one for one in ids if files.index(one.partition("::")[0]) % 2 == which] for which in (0, 1)]
    return joined(pool.map(run_tests, [half for half in halves if half], places))


def joined(
    parts: Iterable[tuple[dict[str, list[str]], dict[str, int]]],
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The results of several runs; of a test that was in several of them the last one counts."""
    outcomes: dict[str, list[str]] = {}
    tried: dict[str, int] = {}
    for ended, inputs in parts:
        outcomes |= ended
        tried |= inputs
    return outcomes, tried


def run_peer(case: str, place: Path, seconds: int = 90) -> str:
    """What a peer did, in words."""
    directory = place / case
    directory.mkdir()
    command = [sys.executable, "-W", "ignore", "-m", "tests.acceptance.peers", case, str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"still at it after {seconds} s"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return f"the case itself failed: {done.stderr.strip().splitlines()[-1:]}"
    return str(json.loads(lines[-1])["found"]).replace(str(directory), "…")


def ours(tests: tuple[str, ...], outcomes: dict[str, list[str]], short: str) -> str:
    """The cell of our result: the tests and how they ended."""
    parts = []
    for test in tests:
        ended = outcomes.get(test, [])
        good = ended.count("passed")
        mark = ("✅" if good == len(ended) else "❌") if ended else "· not run"
        file, _, function = test.partition("::test_")
        parts.append(f"{mark} {good}/{len(ended)} [{function.replace('_', ' ')}](../tests/{file})")
    if short:
        parts.append(f"🔧 {short}")
    return "<br>".join(parts)


def line(fault: Fault, outcomes: dict[str, list[str]], tried: dict[str, int], said: dict[str, str]) -> str:
    """A fault's row."""
    inputs = sum(tried.get(test, 0) for test in fault.tests)
    theirs = [f"**{case.who}**: {said[name]}" for name, case in CASES.items() if case.number == fault.number]
    cells = (fault.number, fault.what, ours(fault.tests, outcomes, fault.short), f"{inputs:,}" if inputs else "")
    peers = "<br>".join(theirs).replace("|", "\\|")
    return f"| {' | '.join(map(str, cells))} | {peers} |\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", choices=[fault.number for fault in FAULTS])
    parser.add_argument(
        "--reports", type=Path, nargs="+", default=[], metavar="XML", help="pytest runs to read instead"
    )
    arguments = parser.parse_args(argv)
    faults = [fault for fault in FAULTS if arguments.only is None or fault.number in arguments.only]
    also = ALSO_FUZZED if arguments.only is None else ()
    tests = list(dict.fromkeys((*(test for fault in faults for test in fault.tests), *also)))
    cases = [name for name, case in CASES.items() if case.number in {fault.number for fault in faults}]
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:  # whose threads wait for processes
        said = dict(zip(cases, pool.map(lambda case: run_peer(case, Path(place)), cases), strict=True))
        outcomes, tried = (
            joined(map(read_report, arguments.reports)) if arguments.reports else in_halves(tests, Path(place), pool)
        )
    page = HEAD.format(versions=", ".join(f"{name} {version(name)}" for name in PACKAGES))
    page += "".join(line(fault, outcomes, tried, said) for fault in faults)
    ended = [one for test in tests for one in outcomes.get(test, [])]
    page += f"\n{ended.count('passed')} of {len(ended)} tests passed.\n\n"
    page += "Inputs made up, by test:\n\n"
    page += "".join(f"- {count:,}: {test.partition('::test_')[2].replace('_', ' ')}\n" for test, count in tried.items())
    page += "\n" + LIMITS.read_text("utf-8")
    print(page)
    if arguments.only is None:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
