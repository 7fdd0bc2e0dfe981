"""A folder of runs of which some are damaged: each is shown as far as it goes, the whole as if alone."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from apt_model.cli import main
from apt_model.dashboard import catalog
from apt_model.events.runfile import EVENTS
from tests.dashboard.kit import Site, served
from tests.events.mutate import damaged_folder, real_lines
from tests.strict_json import strict_json

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
LINES = real_lines()
AT_ONCE, QUICK, MANY, SEED = 10, 40, 2_000, 18
SECONDS = 10


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "FRESH_SECONDS", 0.0)


def whole(record: Path) -> Path:
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_bytes(b"".join(line + b"\n" for line in LINES))
    return record


def remove(folder: Path) -> None:
    for path, folders, _ in os.walk(folder):
        for name in folders:
            with suppress(OSError):
                (Path(path) / name).chmod(0o755)
    shutil.rmtree(folder)


def look(site: Site) -> dict[str, tuple[dict[str, object], int]]:
    """Every run as the list and its history tell of it; each answer is strict JSON and comes in time."""
    found = {}
    begun = time.monotonic()
    answer = site.get("/api/runs")
    assert answer.status == 200
    for run in strict_json(answer.body):
        history = site.get(f"/api/runs/{run['id']}/history")
        assert history.status == 200
        told = strict_json(history.body)
        assert (told["damage"] is None) or told["damage"]["why"]
        found[run["id"]] = ({**run, "damage": told["damage"]}, len(told["events"]))
    assert time.monotonic() - begun < SECONDS
    return found


def try_folders(count: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Look at so many damaged run folders, some at a time beside a whole run; how many were shown as damaged."""
    dice, runs, shown = Random(SEED), folder / "runs", 0
    good = whole(runs / "good" / EVENTS).parent
    with served(runs) as site:
        for _ in range(count // AT_ONCE):
            damaged = [damaged_folder(dice, runs, LINES, good) for _ in range(AT_ONCE)]
            found = look(site)
            assert [events for run, events in found.values() if run["name"] == "good"] == [len(LINES)]
            assert all(run["damage"] is None for run, _ in found.values() if run["name"] == "good")
            shown += sum(run["damage"] is not None for run, _ in found.values())
            for run in damaged:
                with suppress(OSError):
                    run.chmod(0o755)
                begun = time.monotonic()
                code = main(["report", str(good), str(run), "-o", str(folder / "report.html")])
                told = capsys.readouterr()
                assert code in (0, 3, 5), told.err
                assert len(told.err.splitlines()) <= 1
                assert main(["replay", str(run), "--lang", "en"]) in (0, 3, 5)
                told = capsys.readouterr()
                assert len(told.err.splitlines()) <= 1
                assert "BUG" not in told.err
                assert time.monotonic() - begun < SECONDS
                remove(run)
    return shown


def test_damaged_run_folders_take_nothing_from_the_whole_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_folders(QUICK, tmp_path, capsys) > QUICK / 4


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_two_thousand_damaged_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert try_folders(MANY, tmp_path, capsys) > MANY / 4
