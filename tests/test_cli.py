"""The command line: what it prints, which code it exits with."""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from apt_model.cli import main
from apt_model.commands.console import program
from apt_model.events.cards import ScoredObservation
from apt_model.events.records import ExamTaken
from apt_model.events.runfile import read_events
from apt_model.models import wide_matmul
from apt_model.models.pretrained import save_model

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 8


@pytest.fixture
def school(teacher: Any, student: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a teacher, a student and a text file."""
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "teacher")
    save_model(student, tokenizer, "student")
    Path("text.txt").write_text("\n".join(LINES), encoding="utf-8")
    return tmp_path


def distill(*more: str, student: str = "layers=1,hidden=16", out: str = "run") -> int:
    fixed = ["--teacher", "teacher", "--student", student, "--data", "text.txt", "--out", out, "--device", "cpu"]
    return main(["distill", *fixed, "--num-epochs", "1", "--batch-size", "8", *more])


def test_distill_shows_the_lesson_and_says_where_everything_lies(
    school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("--sample-frequency", "2", "--learning-rate", "0.01") == 0
    shown = capsys.readouterr().out
    assert shown.count("📍 Batch") == 2
    assert "学生模型: run/student" in shown
    assert f"{sys.executable} -m apt_model talk run" in shown
    assert (school / "run" / "summary.json").exists()


def test_what_distill_left_can_be_replayed_to_the_same_cards_and_talked_to(
    school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("--sample-frequency", "2") == 0
    lesson = capsys.readouterr().out
    assert main(["replay", "run"]) == 0
    replayed = capsys.readouterr().out
    assert replayed
    assert replayed in lesson
    assert main(["replay", "run", "--lang", "en", "--show-diff"]) == 0
    assert "Differs: " in capsys.readouterr().out
    assert main(["talk", "run", "人工", "the", "--max-new-tokens", "5"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("人工")
    assert second.startswith("the")


def test_the_same_command_gives_the_same_student(school: Path) -> None:
    assert distill(out="one") == 0
    assert distill("--plain", "--sample-frequency", "3", out="two") == 0
    one, two = ((school / name / "student" / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_config_file_is_read_and_flags_win(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lesson.toml").write_text('temperature = 2.0\nlang = "en"\nalpha = 0.5\nseed = 7\n', encoding="utf-8")
    assert distill("--config", "lesson.toml", "--temperature", "3") == 0
    assert "temperature=3.0, α=0.5, β=0.5" in capsys.readouterr().out
    assert json.loads(Path("run/config.json").read_text())["config"]["seed"] == 7


@pytest.mark.parametrize(
    ("flags", "prompts", "steps"),
    [
        (["--exam-prompts", "人工", "the net", "--exam-frequency", "1", "--exam-tokens", "3"], ["人工", "the net"], 3),
        ([], None, 2),
        (["--exam-prompts"], [], 0),
    ],
)
def test_exams_are_held_with_the_prompts_given_with_some_of_the_data_or_not_at_all(
    flags: list[str], prompts: list[str] | None, steps: int, school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("--max-steps", "2", *flags) == 0
    shown = capsys.readouterr().out
    exams = [event for event in read_events(school / "run") if isinstance(event, ExamTaken)]
    assert len(exams) == steps == shown.count("考试")
    data = (school / "text.txt").read_text(encoding="utf-8")
    for exam in exams:
        asked = [answer.prompt for answer in exam.answers]
        assert asked == prompts if prompts else len(asked) == 3 and all(prompt in data for prompt in asked)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--temperature", "0"], 2, "error[CONFIG]: temperature: got 0.0"),
        (["--temprature", "2"], 2, "did you mean --temperature?"),
        (["--temperature", "hot"], 2, "invalid float value: 'hot'"),
        (["--sample-frequency", "0"], 2, "sample_frequency: got 0"),
        (["--exam-prompts", ""], 2, "exam_prompts"),
        (["--alpha", "0.9", "--beta", "0.9"], 2, "try alpha=0.5, beta=0.5"),
        (["--device", "cuda:99"], 2, "cuda"),
        (["--lang", "fr"], 2, "lang is unknown; got 'fr'"),
        (["--teacher", "a/b/c"], 3, "there is no directory a/b/c"),
        (["--device", "abacus"], 2, "device is unknown"),
        (["--batch-size", "0"], 2, "batch_size is too small"),
        (["--config", "nowhere.toml"], 2, "cannot be read"),
        (["--student", "layers=6,width=9"], 2, "student description has an unknown key or a wrong value"),
        (["--student", "layers=99"], 3, "error[MODEL]: num_layers does not fit the teacher; got 99, expected 1 to 2"),
        (["--student", "hidden=17"], 3, "best a multiple of 16"),
        (["--teacher", "nowhere"], 3, "error[MODEL]: model nowhere cannot be loaded"),
        (["--data", "nowhere.txt"], 3, "error[DATA]: there is no file nowhere.txt"),
        (["--out", "text.txt/run"], 5, "error[STORAGE]: run directory text.txt/run cannot be written"),
    ],
)
def test_a_mistake_is_one_line_with_its_exit_code(
    arguments: list[str], code: int, words: str, school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(*arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error[")
    assert captured.out == ""
    assert not (school / "run" / "events.jsonl").exists()


def test_a_student_with_another_tokenizer_is_refused_with_the_first_ids_that_differ(
    school: Path, student: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = type(tokenizer).from_pretrained("teacher")
    other.add_tokens(["新"])
    save_model(student, other, "other")
    assert distill(student="other") == 3
    assert (
        f"different tokenizers, 1 ids differ; got id {len(tokenizer)}: teacher None, student '新'"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("on_path", "shown"), [(True, "apt-model"), (False, "venv/bin/apt-model")])
def test_the_commands_shown_are_ones_that_work(
    on_path: bool, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "venv" / "bin" / "apt-model"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", ["venv/bin/apt-model", "demo"])
    monkeypatch.setenv("PATH", str(script.parent) if on_path else "/nowhere")
    assert program() == shown


def test_a_run_is_not_overwritten(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill() == 0
    before = (school / "run" / "events.jsonl").read_bytes()
    assert distill() == 5
    assert "run already holds a run" in capsys.readouterr().err
    assert (school / "run" / "events.jsonl").read_bytes() == before


def test_the_traceback_is_shown_on_debug_only(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("--temperature", "0", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_directory_without_safetensors_is_never_unpickled(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    weights = school / "teacher" / "model.safetensors"
    weights.unlink()
    torch.save({}, school / "teacher" / "pytorch_model.bin")
    assert distill() == 3
    assert "expected a Hugging Face model directory with safetensors" in capsys.readouterr().err


def run(*arguments: str, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apt_model", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **more)


def test_help_names_every_command_and_setting_and_loads_no_torch(tmp_path: Path) -> None:
    overview = run("--help", cwd=tmp_path).stdout
    assert all(command in overview for command in ("demo", "distill", "talk", "replay"))
    details = run("distill", "--help-all", "--lang", "en", cwd=tmp_path).stdout
    for words in ("--temperature", "--no-show-diff", "default: 4.0", "layers=6,hidden=384", "--preset"):
        assert words in details
    assert run("--version", cwd=tmp_path).stdout.startswith("apt-model ")
    assert run(cwd=tmp_path).returncode == 2


def test_a_reader_that_goes_away_does_not_end_the_run(school: Path) -> None:
    command = (
        f"{sys.executable} -m apt_model distill --teacher teacher --student layers=1,hidden=16 "
        "--data text.txt --out run --device cpu --sample-frequency 1 --num-epochs 3 | head -3"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, shell=True, cwd=school, capture_output=True, text=True, check=False, env=environment)
    assert "Traceback" not in done.stderr
    assert (school / "run" / "student" / "model.safetensors").exists()
    assert (school / "run" / "summary.json").exists()


@pytest.mark.parametrize("plain", [False, True])
def test_an_output_on_a_full_disk_does_not_end_the_run_and_is_told_at_its_end(plain: bool, school: Path) -> None:
    command = [sys.executable, "-m", "apt_model", "distill", "--teacher", "teacher", "--student", "layers=1,hidden=16"]
    command += ["--data", "text.txt", "--out", "run", "--device", "cpu", "--num-epochs", "1", *["--plain"][:plain]]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=school)
    warning, line = done.stderr.splitlines()
    assert warning.startswith("warning: 'the display failed, training goes on: ")
    assert line.startswith(
        "error[STORAGE]: a file or the output cannot be read or written; got No space left on device"
    )
    assert done.returncode == 5
    assert (school / "run" / "student" / "model.safetensors").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["chats.jsonl", "rows.parquet", "lines.txt", "pairs.csv"])
def test_distill_takes_data_of_every_kind_packed_or_streamed(
    kind: str, school: Path, chatty: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chatty.save_pretrained("teacher")
    chats = [[{"role": "user", "content": "ab"}, {"role": "assistant", "content": line}] for line in LINES]
    rows = {
        "chats.jsonl": {"messages": chats},
        "rows.parquet": {"text": LINES},
        "lines.txt": {"text": LINES},
        "pairs.csv": {"prompt": ["ab"] * len(LINES), "completion": LINES},
    }[kind]
    table = datasets.Dataset.from_dict(rows)
    if kind.endswith("txt"):
        Path(kind).write_text("\n".join(LINES), encoding="utf-8")
    else:
        {"jsonl": table.to_json, "parquet": table.to_parquet, "csv": table.to_csv}[kind.rpartition(".")[2]](kind)
    assert distill("--data", kind, "--packing", "--max-length", "24", out="packed") == 0
    assert distill("--data", kind, "--streaming", "--max-steps", "3", "--validation-split", "4", out="streamed") == 0
    shown = capsys.readouterr().out
    assert shown.count("🎉") == 2
    assert "🧪 验证偷懒程度" in shown
    gc.collect()  # datasets leaves csv files open


def test_the_cards_of_distill_can_come_from_other_data(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.txt").write_text("the large network\n", encoding="utf-8")
    assert distill("--validation-data", "other.txt", "--show-on", "validation", "--given-tokens", "0") == 0
    assert "Batch 0（验证）" in capsys.readouterr().out
    assert [e.input_text for e in read_events("run") if isinstance(e, ScoredObservation)] == ["the large network"]
    assert distill("--show-on", "validation", out="another") == 2
    assert "give --validation-split" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lang", "more", "said"),
    [
        ("zh", (), ["裁出来", "保留的层: ", "（教师共 2 层）", "宽度 32 → 16，保住了残差流 ", "个 token"]),
        ("en", ("--packing",), ["cut out of its teacher", "Layers kept: ", "(the teacher has 2)", "Width 32 → 16: "]),
    ],
)
def test_a_student_is_cut_out_of_its_teacher_and_it_is_said_what_was_kept(
    school: Path, capsys: pytest.CaptureFixture[str], lang: str, more: tuple[str, ...], said: list[str]
) -> None:
    sizes = "layers=1,hidden=16,init=teacher,method=channels,rank=importance"
    assert distill("--lang", lang, "--max-length", "24", *more, student=sizes) == 0
    shown = capsys.readouterr().out
    assert [words for words in said if words not in shown] == []
    assert json.loads((school / "run" / "student" / "config.json").read_text())["hidden_size"] == 16


def test_talk_reads_beginnings_from_standard_input(school: Path) -> None:
    done = run("talk", "teacher", "--max-new-tokens", "3", cwd=school, input="人工\n\n")
    assert done.returncode == 0
    assert done.stdout.startswith("人工")


@pytest.fixture
def locale_c() -> Callable[[], dict[str, str]]:
    return lambda: {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}


def test_an_ascii_terminal_gets_an_english_lesson_in_ascii(
    school: Path, locale_c: Callable[[], dict[str, str]]
) -> None:
    arguments = ["--teacher", "teacher", "--student", "layers=1,hidden=16", "--data", "text.txt", "--out", "run"]
    done = run("distill", *arguments, "--device", "cpu", "--num-epochs", "1", cwd=school, env=locale_c())
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "[T] Teacher: " in done.stdout


def cache(*more: str, out: str = "cache") -> int:
    fixed = ["--teacher", "teacher", "--data", "text.txt", "--out", out, "--device", "cpu", "--k", "6"]
    return main(["cache-teacher", *fixed, *more])


def learn_from_cache(*more: str, student: str = "layers=1,hidden=16") -> int:
    fixed = ["--teacher-cache", "cache", "--student", student, "--data", "text.txt", "--out", "run", "--device", "cpu"]
    return main(["distill", *fixed, "--num-epochs", "1", "--batch-size", "8", *more])


def test_a_teacher_is_cached_and_then_is_not_needed_any_more(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache("--temperature", "2", "--max-length", "20", "--lang", "en") == 0
    told = capsys.readouterr().out
    positions = sum(min(len(line) + 2, 20) - 1 for line in LINES[:4])  # start, a token a character, end
    for words in (
        f"4 samples, {positions} positions",
        "6 likeliest tokens (temperature 2.0)",
        "bytes per position",
        "nats of KL",
    ):
        assert words in told
    shutil.rmtree("teacher")
    assert learn_from_cache("--sample-frequency", "1") == 0
    shown = capsys.readouterr().out
    assert "温度=2.0" in shown
    assert "偷懒程度" in shown
    assert (school / "run" / "student" / "model.safetensors").exists()


@pytest.mark.parametrize(("flags", "is_told"), [((), True), (("--wide-matmul", "off"), False)])
def test_caching_tells_of_products_through_onednn(
    flags: tuple[str, ...], is_told: bool, school: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(wide_matmul, "gains", lambda: True)
    monkeypatch.setattr(wide_matmul, "LEAST_WORK", 1)
    assert cache("--lang", "en", *flags) == 0
    assert (capsys.readouterr().out.count("wide_matmul=off leaves them to MKL") == 1) == is_told


@pytest.mark.parametrize("flags", [(), ("--wide-matmul", "off")])
def test_a_run_is_resumed_with_the_wide_matmul_that_it_was_begun_with(
    flags: tuple[str, ...], school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "auto" if flags else "off"
    assert distill(*flags, "--max-steps", "2") == 0
    assert distill(*flags, "--max-steps", "2", "--resume", "--wide-matmul", other) == 2
    assert f"wide_matmul: {flags[1] if flags else 'auto'} then, {other} now" in capsys.readouterr().err


def test_a_second_caching_asks_the_teacher_nothing_new(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache() == 0
    before = {file.name: file.stat().st_mtime_ns for file in Path("cache").iterdir()}
    assert cache() == 0
    assert {file.name: file.stat().st_mtime_ns for file in Path("cache").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--k", "0"], 2, "k is too small"),
        (["--temperature", "0"], 2, "temperature: got 0.0"),
        (["--teacher", "student"], 3, "got another teacher."),
        (["--k", "5"], 3, "got k 6 instead of 5."),
        (["--out", "text.txt/cache"], 5, "cache directory text.txt/cache cannot be written"),
        (["--out", "teacher"], 5, "teacher holds files that are not a cache's"),
        (["--data", "nowhere.txt"], 3, "there is no file nowhere.txt"),
    ],
)
def test_a_mistake_in_caching_is_one_line_with_its_exit_code(
    arguments: list[str], code: int, words: str, school: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cache() == 0
    capsys.readouterr()
    assert cache(*arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "3"], "temperature 4.0 instead of 3.0"),
        (["--max-length", "9"], "max_length 512 instead of 9"),
        (["--packing"], "packing False instead of True"),
        (["--teacher", "student"], "another teacher"),
        (["--data", "other.txt"], "1 of 2 rows are not in cache cache"),
        (["--teacher-cache", "teacher"], "teacher holds no teacher cache"),
        (["--student", "other"], "different tokenizers"),
    ],
)
def test_a_lesson_that_the_cache_was_not_made_for_is_refused(
    arguments: list[str], words: str, school: Path, tokenizer: Any, student: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = type(tokenizer).from_pretrained("teacher")
    other.add_tokens(["新"])
    save_model(student, other, "other")
    Path("other.txt").write_text(f"{LINES[0]}\n网络\n", encoding="utf-8")
    assert cache() == 0
    capsys.readouterr()
    assert learn_from_cache(*arguments) == 3
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_a_lesson_without_any_teacher_is_refused(school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--student", "student", "--data", "text.txt", "--out", "run"]) == 2
    assert "no teacher is named. Fix: give --teacher or --teacher-cache." in capsys.readouterr().err
