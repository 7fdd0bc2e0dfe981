"""What a command shows before its lesson: on a real terminal, in a pipe, and at Ctrl-C."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest

from apt_model.cli import make_parser
from apt_model.commands.console import LOADS_TORCH, first_word
from apt_model.models.pretrained import save_model
from tests.moments import LINE
from tests.terminal import on_terminal

ERASE = "\r\x1b[2K"
APT = [sys.executable, "-m", "apt_model"]
OTHERS = ("Loading weights", "Writing model shards", "Map", "Generating", "it/s", "[transformers]", "Warning")


@pytest.fixture
def school(teacher: Any, tokenizer: Any, tmp_path: Path) -> Path:
    """A directory with a teacher and a text, whose lines are longer than the tokenizer says its model can read."""
    own = tokenizer.special_tokens_map
    short = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=8, **own)
    save_model(teacher, short, tmp_path / "teacher")
    lines = ["互联网是全球最大的计算机网络。", "the network, is large."] * 16
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def distill(*more: str) -> list[str]:
    fixed = ["--teacher", "teacher", "--student", "layers=1,hidden=16", "--data", "text.txt", "--out", "run"]
    return [*APT, "distill", *fixed, "--device", "cpu", "--max-steps", "2", *more]


@pytest.mark.slow
def test_the_first_line_is_there_before_anything_is_loaded(school: Path) -> None:
    seconds = [on_terminal([*APT, "talk", "teacher", "互"], school).first_seconds for _ in range(3)]
    assert median(seconds) < 0.3 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.slow
def test_a_terminal_is_told_what_is_loading_and_then_shows_the_lesson_alone(school: Path) -> None:
    shown = on_terminal(distill("--lang", "en", "--validation-split", "4"), school)
    assert shown.code == 0, shown.text
    before, _, lesson = shown.text.partition("=====")
    for said in ("Loading PyTorch", "Reading the text", "Loading the teacher teacher", "Checking", "Splitting"):
        assert f"⌛ {said}" in before
    assert "⌛ " not in lesson.replace("⌛ 0:0", "")
    assert [words for words in OTHERS if words in shown.text] == []
    assert before.count("\r\x1b[2K") == before.count("⌛ ")


@pytest.mark.slow
def test_a_pipe_gets_the_lesson_alone_and_standard_error_nothing(school: Path) -> None:
    done = subprocess.run(distill(), cwd=school, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("🔍 上课前的检查")
    assert [words for words in OTHERS if words in done.stdout] == []
    talked = subprocess.run([*APT, "talk", "run"], cwd=school, input="互联\n", capture_output=True, text=True)
    assert (talked.returncode, talked.stderr) == (0, "")
    assert talked.stdout.startswith("互联")
    assert talked.stdout.count("\n") == 1


@pytest.mark.slow
def test_the_address_of_the_page_stands_above_the_first_card_of_a_live_terminal(school: Path) -> None:
    shown = on_terminal(distill("--lang", "en", "--watch", "--no-doctor"), school, env={"BROWSER": "true"})
    for process in psutil.process_iter(["cmdline"]):
        if str(school / "run") in (process.info["cmdline"] or ()):
            process.kill()  # the page's: it would wait for somebody to look
    assert shown.code == 0, shown.text
    header, cards = shown.text.index("Knowledge distillation"), shown.text.index("📍 Batch 0")
    assert header < shown.text.index("👀 Watch it in the browser: http://127.0.0.1:") < cards
    assert shown.text.index("The lesson is over") < shown.text.index("👀 The page is still open: http://127.0.0.1:")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2, 0.5, 1.0, 2.0])
def test_ctrl_c_while_modules_are_imported_is_one_line(seconds: float, school: Path) -> None:
    shown = on_terminal([*APT, "demo", "--lang", "en"], school, interrupt_after=seconds)
    assert shown.code == 130
    left = shown.text.rpartition(ERASE)[2]
    assert left.startswith("interrupted")
    assert left.count("\n") == 1


def test_ctrl_c_while_the_command_line_itself_is_imported_is_one_line() -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "from apt_model.__main__ import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv[1:] = ['demo']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == LINE


def test_an_interrupt_that_came_through_exec_ends_with_130_too(tmp_path: Path) -> None:
    code = (
        "import sys, apt_model.cli as cli\n"
        "def make_parser(): exec('raise KeyboardInterrupt')\n"
        "cli.make_parser = make_parser\n"
        "sys.exit(cli.main([]))\n"
    )
    (tmp_path / "interrupted.py").write_text(code)
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1


def test_only_commands_that_load_torch_begin_with_the_first_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    commands = next(action for action in make_parser()._actions if action.dest == "==SUPPRESS==" or action.choices)
    assert set(LOADS_TORCH) < set(commands.choices)  # type: ignore[arg-type]
    (tmp_path / "lesson.toml").write_text('lang = "en"')
    said = {}
    for arguments in (
        ["demo"],
        ["talk", "run", "--lang", "en"],
        ["distill", "--config", str(tmp_path / "lesson.toml")],
        ["distill", "--config", str(tmp_path / "nowhere.toml")],
        ["demo", "--lang", "klingon"],
        ["demo", "--lang"],
        ["demo", "--help"],
        ["replay", "run"],
        [],
    ):
        with first_word(arguments):
            said[" ".join(arguments)] = capsys.readouterr().err.split(" ")[1:2]
    assert [words[0] if words else "" for words in said.values()] == ["正在载入", "Loading", "Loading"] + [""] * 6


def test_a_line_wider_than_the_terminal_is_cut_and_a_dumb_one_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from apt_model.commands.console import waiting

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with waiting("en", "model", name="a/very/long/name\n" * 9):
        drawn = capsys.readouterr().err
    assert len(drawn) <= 20
    assert drawn.endswith("\r")
    assert capsys.readouterr().err == ERASE
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    with waiting("en", "data"):
        pass
    assert capsys.readouterr().err == "⌛ Reading the text …\n"
