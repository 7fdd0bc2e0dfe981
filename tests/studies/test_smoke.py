"""Each study really runs, at the smallest size there is. What it finds so means nothing."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from apt_model.models.pretrained import load_model, save_model
from studies import against_trl, chats, crossing, quality, students, teachers, texts, truth

LINES = "人工智能是全球最大的网络。\n互联网是医疗教育的计算机。\n" * 8


@pytest.fixture
def material(teacher: Any, chatty: Any, tmp_path: Path) -> Path:
    """A folder with a teacher, texts to learn from and texts to judge by."""
    save_model(teacher, chatty, str(tmp_path / "teacher"))
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text(LINES, "utf-8")
    return tmp_path


def given(material: Path, *, data: str = "--data", judged: str = "--validation") -> list[str]:
    """The options that name it."""
    train, test = (str(material / name) for name in ("train.txt", "test.txt"))
    return ["--teacher", str(material / "teacher"), data, train, judged, test]


def test_quality(material: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(material / "q")]
    arms = ["fresh, labels alone (control)", "fresh, a teacher of other rows, T = 1"]
    quality.main([*given(material), *out, "--arms", *arms, "--steps", "6", "--seeds", "1", "--batch-size", "4"])
    told = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in told.splitlines() if line.startswith("| ")][2:] == [
        *(f"| {arm}" for arm in arms),
        "| the teacher",
    ]
    quality.main([*out, "--steps", "6", "--redraw"])
    assert told.endswith(capsys.readouterr().out)


def test_against_trl(material: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    everyone = against_trl.contenders

    def ours(lessons: against_trl.Lessons, batch_size: int) -> dict[str, Any]:
        return {name: one for name, one in everyone(lessons, batch_size).items() if name == "ours, teacher's layers"}

    monkeypatch.setattr(against_trl, "contenders", ours)
    out = ["--out", str(material / "t"), "--seeds", "1", "--seconds", "0.1", "--batch-size", "4"]
    against_trl.main([*given(material), *out])
    assert "| ours, teacher's layers |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TRL's trainers
def test_against_trl_with_all_of_its_trainers(material: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    out = ["--out", str(material / "t"), "--seeds", "1", "--seconds", "0.1", "--batch-size", "4", "--max-length", "16"]
    against_trl.main([*given(material), *out])
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("| TRL")]) == 4


def test_students(material: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--only", "fresh", "layers, even", "--depth", "layers=1", "--steps", "1", "--max-length", "16"]
    students.main([*given(material, data="--train", judged="--test"), *few])
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[3:]] == [
        "| teacher",
        "| fresh",
        "| layers, even",
    ]


def test_crossing(material: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--rows", "16", "--test-rows", "4", "--epochs", "1", "--vocabulary", "300", "--arms", "kl"]
    crossing.main([*given(material, data="--train", judged="--test"), *few])
    assert [json.loads(line)["arm"] for line in capsys.readouterr().out.splitlines()] == ["teacher", "kl"]


def test_teachers(material: Path) -> None:
    out = str(material / "fresh")
    teachers.main(["--data", str(material / "train.txt"), "--epochs", "1", "--out", out])
    model, tokenizer, _ = load_model(out)
    assert model.config.vocab_size == len(tokenizer)


def test_texts_and_chats(material: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = material / "pages"
    (pages / "zh_CN" / "man1").mkdir(parents=True)
    for number, title in enumerate(("网络", "教育"), start=1):
        text = f"<title>{title}</title><p>{'人工智能' * 10}{number}。</p><p>short</p>"
        (pages / f"{number}.html").write_text(text, "utf-8")
    (pages / "zh_CN" / "man1" / "a.1.gz").write_bytes(gzip.compress(f".SH A\n{'医疗' * 20}\n".encode()))
    texts.main([str(pages), "--out", str(material)])
    assert [len((material / name).read_text("utf-8").splitlines()) for name in ("train.txt", "test.txt")] == [2, 1]
    chats.main([str(pages), "--teacher", str(material / "teacher"), "--answer-tokens", "2", "--out", str(material)])
    (held_out,) = (material / "chats-test.jsonl").read_text("utf-8").splitlines()
    assert json.loads(held_out)["messages"][0] == {"role": "user", "content": "什么是网络？"}
    assert "chats.jsonl: 1 chats" in capsys.readouterr().out


def test_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth.main(["--out", str(tmp_path), "--only", "two steps", "--seeds", "1"])
    told = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in told.splitlines()[2:]] == ["| two steps", "| **all**"]
    truth.main(["--out", str(tmp_path), "--only", "two steps", "--seeds", "1"])  # now from its file
    assert capsys.readouterr().out == told
