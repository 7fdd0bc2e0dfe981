"""Help: one screen, every flag under --help-all, in both languages."""

import argparse
import re
import shlex
import tomllib
from importlib.resources import files
from typing import Any

import pytest
from wcwidth import wcswidth

from apt_model.cli import main, make_parser
from apt_model.config import settings

COMMANDS = make_parser().commands()
CHINESE = tomllib.loads(files("apt_model.locales").joinpath("help_zh.toml").read_text("utf-8"))
HANZI = re.compile(r"[\u4e00-\u9fff]")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_fits_one_screen_in_both_languages(
    command: tuple[str, ...], lang: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = shown(capsys, *command, "--lang", lang, "--help") if command else shown(capsys, "--lang", lang, "--help")
    lines = page.splitlines()
    assert len(lines) <= 24
    assert max(map(wcswidth, lines)) <= 80
    own = re.sub(r".*(English|中文).*", "", page)
    assert bool(HANZI.search(own)) == (lang == "zh")


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("name", ["demo", "distill", "doctor", "cache-teacher", "evaluate"])
def test_the_examples_of_a_short_page_are_three_and_are_taken(
    name: str, lang: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    page = shown(capsys, name, "--lang", lang, "-h")
    examples = [line.strip() for line in page.splitlines() if line.startswith("  apt-model ")]
    assert len(examples) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lesson.yaml").write_text("teacher: t\nstudent: s\ndata: d\n")
    for line in examples:
        make_parser().parse_args(shlex.split(line)[1:])


def test_the_short_page_of_distill_says_what_is_needed_and_whose_beta_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "distill", "--help", "--lang", "en")
    assert all(f"  {flag} " in page for flag in ("--teacher", "--student", "--data", "--out"))
    assert "--beta weighs the labels. TRL's β of GKD\nis --mixture here" in page


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [40, 80])
def test_help_all_has_every_flag_with_its_text(
    name: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    page = shown(capsys, name, "--help-all", "--lang=en")
    for flag in COMMANDS[name].flags():
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", page) or flag == "--attached", flag
    texts = [line for line in page.splitlines() if not line.startswith("  -")]
    assert max(map(wcswidth, texts)) <= columns


def flags() -> list[tuple[str, argparse.Action]]:
    return [
        (name, action)
        for name, command in COMMANDS.items()
        for _, actions in command.groups()
        for action in actions
        if action.help != argparse.SUPPRESS
    ]


def test_every_flag_group_and_command_has_its_chinese_text_and_none_is_left_over() -> None:
    own, shared = CHINESE["flags_of"], CHINESE["flags"]
    lacking = [(name, one.dest) for name, one in flags() if one.dest not in {**shared, **own.get(name, {})}]
    assert lacking == []
    assert {one.dest for name, one in flags() if one.dest not in own.get(name, {})} == set(shared)
    assert {(name, dest) for name, table in own.items() for dest in table} <= {
        (name, one.dest) for name, one in flags()
    }
    titles = {title for command in COMMANDS.values() for title, some in command.groups() if some}
    assert titles == set(CHINESE["groups"])
    assert set(COMMANDS) == set(CHINESE["commands"])


def test_the_chinese_text_of_a_setting_names_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "distill", "--help-all")
    joined = re.sub(r"\n {24}", "", page)
    for words in (
        "常用 1 到 8（默认：4.0）",
        "（默认：no）",
        "最多多少 token；更长的截掉，packing 时则切开（默认：512）",
    ):
        assert words.replace(" ", "") in joined.replace(" ", "")
    assert all(flag_text for flag_text in settings())


def test_the_language_may_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--lang", "en", "distill", "--help") == shown(capsys, "distill", "--help", "--lang", "en")
    assert make_parser().parse_args(["--lang", "en", "talk", "run"]).lang == "en"


def test_an_ascii_terminal_gets_english_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    with pytest.raises(SystemExit):
        main(["distill", "--help"])
    sys.stdout.flush()
    assert b"Distill a teacher into a student" in buffer.getvalue()


@pytest.mark.parametrize("words", [["--help-all"], ["--lang", "en", "--help-all"], ["--help_all", "--lang=en"]])
def test_all_help_without_a_command_is_the_page_of_commands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "cache-teacher" in shown
    assert ("commands" in shown.lower()) is ("en" in "".join(words))


def test_a_language_without_a_command_asks_for_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "en"]) == 2
    assert "required: COMMAND" in capsys.readouterr().err
