"""What `distill` sets aside for validation without being asked, and where it must not."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from apt_model.cli import main
from apt_model.commands import set_aside
from apt_model.events.cards import Reading
from apt_model.events.records import EpochFinished, StepDone
from apt_model.events.runfile import read_events
from apt_model.models.pretrained import save_model


@pytest.fixture
def school(teacher: Any, student: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A directory with a teacher and texts of 200 lines, which differ, and of 40."""
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "teacher")
    draw = random.Random(0)
    lines = ["".join(draw.choices("abcdefghij", k=8)) for _ in range(200)]
    Path("text.txt").write_text("\n".join(lines), encoding="utf-8")
    Path("few.txt").write_text("\n".join(lines[:40]), encoding="utf-8")
    return lines


def distill(*more: str, data: str = "text.txt", teacher: str = "--teacher=teacher", out: str = "run") -> int:
    named = [teacher, "--student", "layers=1,hidden=16", "--data", data, "--out", out, "--device", "cpu"]
    return main(["distill", *named, "--num-epochs", "1", "--batch-size", "8", "--lang", "en", "--no-doctor", *more])


def readings(unseen: bool) -> list[Reading]:
    return [event for event in read_events("run") if isinstance(event, Reading) and event.unseen == unseen]


def test_a_twentieth_is_set_aside_and_nothing_of_it_is_learned(school: list[str], capsys: Any) -> None:
    assert distill() == 0
    assert " ".join(capsys.readouterr().out.split()).count("Set aside 10 of 200 samples") == 1
    held, learned = readings(unseen=True)[0], readings(unseen=False)[0]
    assert len(held.rows) == 10
    assert len(learned.rows) == 32
    assert set(held.texts) <= set(school)
    assert not set(held.texts) & set(learned.texts)
    assert len([event for event in read_events("run") if isinstance(event, StepDone)]) == 24  # 190 rows by eights


def test_at_least_eight_rows_are_set_aside(school: list[str]) -> None:
    Path("text.txt").write_text("\n".join(school[:100]), encoding="utf-8")
    assert distill() == 0
    assert len(readings(unseen=True)[0].rows) == 8


@pytest.mark.parametrize(
    ("data", "flags", "said"),
    [
        ("few.txt", [], "Fewer than 80 samples, so none is set aside"),
        ("text.txt", ["--streaming", "--max-steps", "3"], "No sample of a stream is set aside"),
        ("text.txt", ["--validation-split", "0"], None),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_set_aside_of_little_data_of_a_stream_or_where_that_is_asked(
    data: str, flags: list[str], said: str | None, school: list[str], capsys: Any
) -> None:
    assert distill(*flags, data=data) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert said in shown if said else "--validation-split" not in shown
    assert not readings(unseen=True)
    assert readings(unseen=False)[0].texts
    assert [event.validation for event in read_events("run") if isinstance(event, EpochFinished)] == [None]


@pytest.mark.parametrize("packing", [[], ["--packing", "--max-length", "20"]])
def test_a_cached_teacher_finds_all_rows_packed_or_not(packing: list[str], school: list[str], capsys: Any) -> None:
    cached = ["--data", "text.txt", "--out", "cache", "--device", "cpu", "--k", "8", "--temperature", "4"]
    assert main(["cache-teacher", "--teacher", "teacher", *cached, *packing]) == 0
    assert distill(teacher="--teacher-cache=cache") == 0
    held, learned = readings(unseen=True), readings(unseen=False)
    assert len(held[0].rows) >= 8
    assert len(learned) == 2
    assert all(row.teacher_ce is not None for row in (*held[0].rows, *learned[0].rows))


def test_a_run_that_began_with_all_rows_goes_on_with_all_rows(
    school: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert distill("--validation-split", "0", "--max-steps", "20", "--save-steps", "5", out="older") == 0
    shutil.copytree("older", "run")
    for place in Path("run/checkpoints").glob("step-*20"):
        shutil.rmtree(place)
    capsys.readouterr()
    assert distill("--max-steps", "20", "--save-steps", "5", "--resume") == 0
    assert "The resumed run trains on all samples" in " ".join(capsys.readouterr().out.split())
    one, two = (Path(name, "student", "model.safetensors").read_bytes() for name in ("older", "run"))
    assert one == two


def test_a_run_that_set_rows_aside_goes_on_with_the_same(school: list[str], capsys: Any) -> None:
    assert distill("--max-steps", "20", "--save-steps", "5", out="older") == 0
    shutil.copytree("older", "run")
    for place in Path("run/checkpoints").glob("step-*20"):
        shutil.rmtree(place)
    assert distill("--max-steps", "20", "--save-steps", "5", "--resume") == 0
    both = [[event.rows for event in read_events(name) if isinstance(event, Reading)] for name in ("older", "run")]
    assert both[0] == both[1]


def test_the_figures_are_those_that_the_sentences_name() -> None:
    assert (set_aside.SHARE, set_aside.FEWEST, set_aside.LEAST) == (0.05, 8, 80)


def test_validation_rows_that_are_learned_too_are_told_of(school: list[str], capsys: Any) -> None:
    Path("twice.txt").write_text("\n".join(school[:60] * 2), encoding="utf-8")
    assert distill(data="twice.txt") == 0
    assert "8 of 8 validation samples are also training samples" in " ".join(capsys.readouterr().out.split())
    shutil.rmtree("run")
    assert distill(data="text.txt") == 0
    assert "also training samples" not in capsys.readouterr().out


@pytest.mark.parametrize("off", [["--packing", "false"], ["--no-packing"]], ids=" ".join)
def test_packing_that_is_typed_as_off_is_not_turned_on_by_a_packed_cache(
    off: list[str], school: list[str], capsys: Any
) -> None:
    cached = ["--data", "text.txt", "--out", "cache", "--device", "cpu", "--k", "8", "--temperature", "4"]
    assert main(["cache-teacher", "--teacher", "teacher", *cached, "--packing", "--max-length", "20"]) == 0
    assert distill(*off, teacher="--teacher-cache=cache") == 3
    assert "does not match this run; got packing" in " ".join(capsys.readouterr().err.split())
