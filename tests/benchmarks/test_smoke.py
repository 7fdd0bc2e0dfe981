"""Each benchmark really runs, at the smallest size there is. What it measures so means nothing.

The other libraries of `benchmarks.step` live in an environment of their own (`make bench`): here they are listed as
missing, with the reason.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from apt_model.events.runfile import RunFile
from apt_model.models.pretrained import save_model
from benchmarks.micro import cache, cached_steps, checkpointing, costs, overhead, products, readings
from benchmarks.micro.viewers import __main__ as viewers
from benchmarks.micro.viewers import crowd, training
from benchmarks.sizes import SIZES, Size
from benchmarks.step import __main__ as step
from benchmarks.step import worker
from benchmarks.step.worker import KINDS, Job, Result

TINY = Size(vocabulary=64, teacher=(32, 1), student=(32, 1), rows=2, length=8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in SIZES:
        monkeypatch.setitem(SIZES, size, TINY)


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of `benchmarks.step` are done in this process, as a worker does them in its own."""

    def run(job: Job, allocator: str = "glibc") -> Result:
        return KINDS[job.kind](Job.parse(json.dumps(asdict(job))))

    monkeypatch.setattr(step, "run", run)
    monkeypatch.setattr(step, "CURVES", {"vocabulary": [(64, TINY)]})


def rows(told: str) -> list[str]:
    """The lines of tables."""
    return [line for line in told.splitlines() if line.startswith("| ")]


@pytest.mark.usefixtures("within")
def test_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--sizes", "S", "--rounds", "1", "--allocators", "kept", "--out", str(tmp_path)]
    step.main([*few, "--contenders", "plain", "distillkit"])
    told = capsys.readouterr().out
    assert "| plain |" in told
    assert "- distillkit (check): ModuleNotFoundError" in told
    step.main(["--redraw", "--out", str(tmp_path)])
    assert capsys.readouterr().out == told
    step.main([*few, "--scaling", "--contenders", "plain"])
    assert "### Over vocabulary" in capsys.readouterr().out
    step.main([*few, "--profile"])
    assert "| **ours-fused** | S |" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{view}.{ending}" for view in ("step", "scaling") for ending in ("json", "md", "png")),
        "profile.json",
        "profile.md",
    }


def test_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    worker.main([json.dumps(asdict(Job(kind="time", contenders=["floor"], size=TINY)))])
    laps = Result.parse(capsys.readouterr().out.splitlines()[-1]).laps
    assert {name: len(own) for name, own in laps.items()} == {"floor fp32": 1, "floor again": 1}


@pytest.mark.slow
def test_a_step_in_processes_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.step", "--sizes", "demo", "--rounds", "1", "--out", str(tmp_path)]
    command += ["--contenders", "plain", "--allocators", "kept"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "| plain |" in done.stdout
    assert "missing" not in done.stdout


def test_overhead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(overhead, "CASES", (("demo", "predicted", 1, 2), ("demo", "continued", 2, 2)))
    overhead.main(["--rounds", "1"])
    *_, predicted, continued = rows(capsys.readouterr().out)
    assert predicted.startswith("| demo | predicted | 1 batches |")
    assert continued.startswith("| demo | continued | 2 batches |")


def test_readings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(readings, "CASES", (("demo", 2),))
    readings.main(["--rounds", "1"])
    assert "reading / step" in capsys.readouterr().out


def test_costs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(costs, "VOCABULARIES", ())  # trains no tokenizer
    costs.main(["--rounds", "1", "--cards", "20"])
    assert len(rows(capsys.readouterr().out)) == 20


def test_products(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(products, "SHAPES", [(8, 16, 32)])
    monkeypatch.setattr(products, "LENGTHS", [("demo", 10)])
    monkeypatch.setattr(products, "REPEATS", 2)
    monkeypatch.setattr(products, "STEPS", 1)
    products.main([])
    assert len(rows(capsys.readouterr().out)) == 2 + 3 + 2 + 2


def test_checkpointing(capsys: pytest.CaptureFixture[str]) -> None:
    checkpointing.main(["--sizes", "demo", "--steps", "2", "--rounds", "1"])
    assert len(rows(capsys.readouterr().out)) == 6


def test_cache(teacher: Any, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(teacher, tokenizer, str(tmp_path / "teacher"))
    (tmp_path / "text.txt").write_text("人工智能是全球最大的网络。\n" * 8, "utf-8")
    given = ["--teacher", str(tmp_path / "teacher"), "--data", str(tmp_path / "text.txt")]
    cache.main([*given, "--rows", "2", "--length", "8", "--temperatures", "2"])
    assert [line.split(" | ")[1] for line in rows(capsys.readouterr().out)[2:]][:2] == ["8", "16"]


def test_cached_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"VOCABULARY": 64, "ROWS": 2, "LENGTH": 8, "STUDENT": (32, 1), "TEACHERS": {"1 ×": (32, 1)}}
    for name, value in sizes.items():
        monkeypatch.setattr(cached_steps, name, value)
    cached_steps.main(["--rounds", "1", "--steps", "1", "--k", "8"])
    assert rows(capsys.readouterr().out)[-1].startswith("| 1 × (1.0) |")


@pytest.mark.slow
@pytest.mark.enable_socket
def test_viewers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    viewers.main(["crowd", "--viewers", "2", "--stalled", "1", "--seconds", "0.2"])
    told = capsys.readouterr().out
    assert "2 of 2 viewers heard all 10 steps" in told
    assert "1 stalled viewers: the last was dropped" in told
    monkeypatch.setattr(training, "TRAINED", {"demo": 2})
    viewers.main(["training", "--rounds", "1"])
    assert rows(capsys.readouterr().out)[-1].startswith("| demo |")
    viewers.main(["long", "--steps", "1000"])
    assert "| the report |" in capsys.readouterr().out


def test_a_crowds_lesson_has_a_card_every_second(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run")
    assert len(crowd.write(file, 0.1, 0)) == 5 + 1
    file.close()
