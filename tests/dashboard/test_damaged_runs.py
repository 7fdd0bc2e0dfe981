"""A folder of runs of which some are damaged: each is shown as far as it goes, the whole as if alone."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import BinaryIO

import pytest

from apt_model.cli import main
from apt_model.dashboard import app, catalog, tail
from apt_model.events.runfile import EVENTS, encode, to_record
from tests.dashboard.kit import Site, card, served, step, verdict, write
from tests.events.mutate import damaged_folder, damaged_record, real_lines
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
            for run in dict.fromkeys(damaged):
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
def test_two_thousand_damaged_run_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", MANY)
    assert try_folders(MANY, tmp_path, capsys) > MANY / 4


def test_a_disk_that_hangs_keeps_no_other_run_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hangs", "good"):
        whole(tmp_path / "runs" / name / EVENTS)
    back, opened = threading.Event(), tail.open_record

    def open_slowly(path: Path) -> BinaryIO:
        if path.parent.name == "hangs":
            back.wait(60)
        return opened(path)

    monkeypatch.setattr(tail, "open_record", open_slowly)
    monkeypatch.setattr(catalog, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(app, "STUCK_SECONDS", 0.3)
    with served(tmp_path / "runs") as site:
        for _ in range(3):
            begun = time.monotonic()
            good, hangs = site.runs()
            assert (good["name"], hangs["name"]) == ("good", "hangs")
            assert hangs["damage"] == {"count": 0, "line": None, "why": "the disk does not answer"}
            assert len(site.get(f"/api/runs/{good['id']}/history").json()["events"]) == len(LINES)
            assert site.get(f"/api/runs/{hangs['id']}/history").status == 503
            stream = site.stream(hangs["id"])
            assert site.stream(good["id"]).listen(until="end").heard
            assert time.monotonic() - begun < 5
        assert len([one for one in threading.enumerate() if one.name == "aside"]) < 12
        back.set()
        stream.listen(until="end")
        assert len(stream.heard) == len(LINES)
        assert all(run["damage"] is None for run in site.runs())


def test_a_long_record_is_read_while_other_runs_are_answered(tmp_path: Path) -> None:
    long = whole(tmp_path / "runs" / "long" / EVENTS)
    with long.open("ab") as file:
        file.write(encode(to_record(step(30))) + b"\n")
        line = encode(to_record(card(30))) + b"\n"
        for _ in range(15):
            file.write(line * 2_000)
    good = whole(tmp_path / "runs" / "good" / EVENTS)
    with served(tmp_path / "runs") as site:
        ids = {run["name"]: run["id"] for run in site.runs()}
        waiting = [site.open(site.request(f"/api/runs/{ids['long']}/history", version="1.0")) for _ in range(20)]
        begun = time.monotonic()
        for _ in range(5):
            assert site.get(f"/api/runs/{ids['good']}/history").json()["offset"] == good.stat().st_size
            assert len(site.runs()) == 2
        assert time.monotonic() - begun < SECONDS
        sizes = {sum(len(part) for part in iter(partial(one.recv, 65_536), b"")) for one in waiting}
        assert len(sizes) == 1
        for one in waiting:
            one.close()


def test_a_record_that_is_cut_back_or_goes_while_it_is_read_does_no_harm(tmp_path: Path) -> None:
    dice = Random(SEED)
    record, good = whole(tmp_path / "runs" / "changing" / EVENTS), whole(tmp_path / "runs" / "good" / EVENTS)
    with served(tmp_path / "runs") as site:
        for _ in range(40):
            content = record.read_bytes() if record.exists() else b""
            way = dice.randrange(5)
            if way == 0:
                record.unlink(missing_ok=True)
            elif way == 1:
                shutil.rmtree(record.parent, ignore_errors=True)
            else:
                whole(record)
                cut = dice.randrange(len(content) + 1)
                record.write_bytes([content[:cut], damaged_record(dice, LINES), content + content][way - 2])
            found = look(site)
            assert [events for run, events in found.values() if run["name"] == "good"] == [len(LINES)]
    assert good.exists()


def test_a_clock_that_jumps_back_only_changes_the_order_of_the_list(tmp_path: Path) -> None:
    for name, times in (("early", (-5e9, -6e9)), ("late", (4e12, 1.0))):
        first, last = times
        write(tmp_path / name, step(1, wall_time=first), step(2, wall_time=last), verdict(2))
    with served(tmp_path) as site:
        assert [(run["name"], run["steps"], run["damage"]) for run in site.runs()] == [
            ("late", 2, None),
            ("early", 2, None),
        ]
        for run in site.runs():
            history = site.get(f"/api/runs/{run['id']}/history").json()
            assert [event["step"] for event in history["events"]] == [1, 2, 2]
