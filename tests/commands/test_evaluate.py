"""`apt-model evaluate`, from files to a table and a JSON file."""

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from apt_model.cli import main
from apt_model.events.runfile import EVENTS
from apt_model.generation.evaluator import evaluate_text_quality
from apt_model.models.pretrained import save_model

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"]
PAIRS = [{"prompt": "ab", "completion": "人工智能"}, {"prompt": "the", "completion": "网络"}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def school(teacher: Any, student: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a teacher, a run with its student, lines and pairs."""
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "teacher")
    save_model(student, tokenizer, "run/student")
    Path("run", EVENTS).touch()
    Path("lines.txt").write_text("\n".join(LINES), encoding="utf-8")
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)), encoding="utf-8")
    return tmp_path


def evaluate(*more: str, data: str = "lines.txt") -> int:
    return main(["evaluate", "run", "--data", data, "--device", "cpu", *more])


def test_a_students_table_stands_beside_its_teachers(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--teacher", "teacher", "--out", "made/here.json") == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[1:3] == ["📊 文本质量评估", f"4 篇文本，计分 {sum(len(line) + 1 for line in LINES)} 个 token"]
    assert lines[4].split() == ["教师模型", "学生模型"]
    assert lines[-1] == "📖 评估结果: made/here.json"
    assert shown.err == ""
    found = json.loads((school / "made" / "here.json").read_text())
    assert f"{found['perplexity']:.2f}" in shown.out
    assert f"{found['teacher']['bits_per_byte']:.3f}" in shown.out
    assert found["decode_tokens_per_second"] > 0


def test_it_finds_what_the_function_finds_and_tells_of_what_is_cut(
    school: Path, student: Any, teacher: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--teacher", "teacher", "--out", "o.json", "--no-speed", "--max-length", "9", "--lang", "en")
    assert evaluate(*words) == 0
    assert capsys.readouterr().err.count("a sample is longer than max_length") == 1
    with pytest.warns(UserWarning, match="a sample is longer than max_length"):
        expected = evaluate_text_quality(student, [LINES], tokenizer, teacher, max_length=9)
    assert json.loads(Path("o.json").read_text()) == json.loads(json.dumps(expected))


def test_prompts_are_answered(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("--max-new-tokens", "4", "--no-speed", "--lang", "en")
    assert evaluate(*short, data="pairs.jsonl") == 0
    assert "prompts answered greedily: 2" in (shown := capsys.readouterr().out)
    assert "chrF" in shown
    assert evaluate(*short, "--max-prompts", "1", data="pairs.jsonl") == 0
    assert "prompts answered greedily: 1" in capsys.readouterr().out
    assert evaluate("--max-new-tokens", "0", "--no-speed", data="pairs.jsonl") == 0
    assert "chrF" not in capsys.readouterr().out


def test_a_teacher_of_another_tokenizer_is_refused(
    school: Path, tokenizer: Any, student: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = type(tokenizer).from_pretrained("teacher")
    other.add_tokens(["新"])
    save_model(student, other, "other")
    assert evaluate("--teacher", "other") == 3
    assert "different tokenizers, 1 ids differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--batch-size", "0"], 2, "batch_size is too small; got 0, expected 1 or more"),
        (["--max-length", "1"], 2, "max_length is too small; got 1, expected 2 or more"),
        (["--max-new-tokens", "-1"], 2, "max_new_tokens is too small"),
        (["--max-prompts", "0"], 2, "max_prompts is too small"),
        (["--lang", "fr"], 2, "lang is unknown"),
        (["--device", "cuda:99"], 2, "cuda"),
        (["--techer", "teacher"], 2, "did you mean --teacher?"),
        (["--teacher", "nowhere"], 3, "model nowhere cannot be loaded"),
        (["--split", "test", "--data", "nowhere.txt"], 3, "there is no file nowhere.txt"),
        (["--out", "run"], 5, "run is a directory"),
        (["--out", "lines.txt/o.json"], 5, "cannot be written"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    arguments: list[str], code: int, words: str, school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_the_extra_one_line_says_so(
    school: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert evaluate(data="pairs.jsonl") == 2
    assert "pip install 'apt-model[evaluate]'" in capsys.readouterr().err
