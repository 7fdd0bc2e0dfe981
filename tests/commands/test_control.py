"""`distill --control`: who is taught beside the student, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.cli import main
from apt_model.commands.control import _learned_by, overall, verdict
from apt_model.errors import ModelError
from apt_model.events.evaluation import Evaluation
from apt_model.events.records import RunFinished, StepDone
from apt_model.events.runfile import read_events
from apt_model.i18n import Phrases
from apt_model.models.pretrained import load_model, save_model

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 4


@pytest.fixture
def school(teacher: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a teacher and a text file."""
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "teacher")
    Path("text.txt").write_text("\n".join(LINES), encoding="utf-8")
    return tmp_path


def distill(*more: str, out: str = "run") -> int:
    fixed = ["--teacher", "teacher", "--student", "layers=1,hidden=16", "--data", "text.txt", "--device", "cpu"]
    how = ["--max-steps", "3", "--batch-size", "4", "--learning-rate", "0.01", "--no-doctor", "--plain", "--out", out]
    return main(["distill", *fixed, *how, *more])


def steps(run: str) -> list[StepDone]:
    return [event for event in read_events(run) if isinstance(event, StepDone)]


def test_a_control_is_the_same_student_on_the_same_data_with_labels_alone(
    school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--validation-data", "text.txt"]
    assert distill(*given, "--control", "2") == 0
    assert distill(*given, "--alpha", "0", "--beta", "1", out="alone") == 0
    assert distill(*given, "--seed", "1", out="other") == 0
    pairs = {"run/control/control-0": "alone", "run/control/student-1": "other"}
    for taught, expected in pairs.items():
        ours, theirs = (load_model(f"{path}/student")[0].state_dict() for path in (taught, expected))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for seed in (0, 1):
        control = steps(f"run/control/control-{seed}")
        beside = steps("run" if seed == 0 else f"run/control/student-{seed}")
        assert [one.tokens for one in control] == [one.tokens for one in beside]
        assert control[0].ce == beside[0].ce  # the same weights on the same batch
        assert all(one.loss == pytest.approx(one.ce) for one in control)
    kept = json.loads(Path("run/control.json").read_text())
    assert set(kept["seeds"]) == {"0", "1"}
    verdicts = [event for event in read_events("run") if isinstance(event, RunFinished)]
    assert verdicts[0].validation is not None
    assert kept["seeds"]["0"]["loss"] == pytest.approx(verdicts[0].validation.ce, rel=1e-5)
    assert "🧪" in capsys.readouterr().out


def test_a_control_has_nothing_of_the_teacher_not_even_its_layers(school: Path) -> None:
    more = ["--hidden-weight", "2", "--on-policy", "0.5", "--on-policy-tokens", "4"]
    assert distill("--validation-data", "text.txt", "--control", *more) == 0
    assert any(step.hidden for step in steps("run"))
    control = steps("run/control/control-0")
    assert all(step.hidden is None and step.loss == pytest.approx(step.ce) for step in control)


def test_a_watched_lesson_opens_one_page_not_one_for_each_control(
    school: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("apt_model.plugins.viewer.Viewer", lambda run_dir, lang, asks: opened.append(run_dir))
    assert distill("--validation-data", "text.txt", "--control", "2", "--watch") == 0
    assert [path.name for path in opened] == ["run"]


def test_what_is_done_already_is_not_taught_again(school: Path) -> None:
    given = ["--validation-data", "text.txt", "--control"]
    assert distill(*given) == 0
    first, record = json.loads(Path("run/control.json").read_text()), Path("run/control/control-0/events.jsonl")
    written = record.stat().st_mtime_ns
    assert distill(*given, "--resume") == 0
    assert record.stat().st_mtime_ns == written
    assert json.loads(Path("run/control.json").read_text()) == first


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--control"], "validation data"),
        (["--control", "0", "--validation-split", "4"], "--control is out of range"),
        (["--control", "--validation-split", "4", "--resume-anyway"], "--control needs settings that do not change"),
    ],
)
def test_a_control_that_could_not_be_judged_is_refused(
    more: list[str], words: str, school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(*more) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
    assert not Path("run/events.jsonl").exists()


def seed(closed: float | None, interval: list[float] | None = None) -> Evaluation:
    one = Evaluation(documents=40, intervals={})
    if closed is not None:
        one["gap_closed"] = closed
    if interval is not None:
        one["intervals"]["gap_closed"] = interval
    return one


def test_over_several_seeds_the_interval_is_students_t_and_over_one_the_documents_own() -> None:
    # mean 0.7, standard deviation 0.1, t(0.975, 2) = 4.303: 0.7 ± 4.303 · 0.1 / √3
    found = overall([seed(0.6), seed(0.7), seed(0.8), seed(None)])
    assert found["gap_closed"] == pytest.approx(0.7)
    assert found["interval"] == pytest.approx([0.45157, 0.94843], abs=1e-4)
    assert (found["over"], found["count"]) == ("seeds", 3)
    assert overall([seed(0.7, [0.6, 0.8])])["interval"] == [0.6, 0.8]
    assert overall([seed(None)]) == {}


def test_a_control_that_learned_by_other_settings_stays_where_it_is_and_another_is_taught(school: Path) -> None:
    given = ["--validation-data", "text.txt"]
    assert distill(*given, "--control") == 0
    assert distill(*given, "--max-steps", "5", "--resume-anyway") == 0
    assert distill(*given, "--max-steps", "5", "--resume", "--control") == 0
    assert len(steps("run/control/control-0")) == 3
    assert len(steps("run/control/control-0-2")) == len(steps("run")) == 5


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe{}", b"{}", b'{"config": 5}', b'{"a":' * 10**5])
def test_a_control_whose_config_is_damaged_is_one_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"{tmp_path} cannot be loaded: config\.json; got ") as caught:
        _learned_by(tmp_path)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (3, False)


def test_a_teacher_that_does_harm_is_said_to() -> None:
    found = [Evaluation({"gap_closed": -0.031, "intervals": {"gap_closed": [-0.1, 0.0]}, "documents": 9})]
    assert "did harm" in (verdict(found, Phrases.load("en")) or "")
    assert "3.1%" in (verdict(found, Phrases.load("en")) or "")


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_verdict_is_a_sentence_with_its_interval(lang: str) -> None:
    say = Phrases.load(lang)
    line = verdict([seed(0.74, [0.7, 0.78])], say)
    assert line is not None
    assert all(part in line for part in ("74.0%", "70.0%", "78.0%", "40"))
    assert verdict([seed(0.74)], say) is not None
    assert verdict([seed(None)], say) is None
