"""A chat template is a program: whatever it does with one chat, the error is one line, and it ends."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from apt_model.data import template_run, template_trial
from apt_model.data.template import render_chat
from apt_model.data.template_trial import why_endless
from apt_model.data.turns import Chat
from apt_model.errors import DataError
from tests.chats import CHATML, byte_level, chat

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("template", [CHATML, "{{ messages }}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{{"])
def test_what_ends_is_let_pass_whatever_it_raises(template: str) -> None:
    assert why_endless(template) is None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LOOP, "does not end"),
        ("{{ 7 ** (7 ** 12) }}", "does not end"),
        ("{{ 'a' * 10 ** 11 }}", "memory"),
        ("{{ '%9999999999d' | format(1) }}", "memory"),
        ("{{ 'a' | center(9999999999) }}", "memory"),
        ("{{ (range(99999) | list) * 99999 }}", "memory"),
    ],
)
def test_what_does_not_end_or_fills_the_memory_is_told(template: str, words: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(template_trial, "SECONDS", 2)
    why_endless.cache_clear()
    begun = time.monotonic()
    assert words in str(why_endless(template))
    assert time.monotonic() - begun < 5


def python_that(tmp_path: Path, does: str) -> str:
    """A program that does something in the shell before it becomes this Python."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\n{does}\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_a_python_that_starts_slowly_counts_for_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(template_trial, "SECONDS", 1)
    monkeypatch.setattr(sys, "executable", python_that(tmp_path, "sleep 1.5"))
    assert why_endless(CHATML + "{# begun slowly #}") is None
    assert "does not end" in str(why_endless(LOOP + "{# begun slowly #}"))


@pytest.mark.parametrize("does", ["exit 1", "sleep 30", "echo hello; exit"])
def test_a_program_that_is_no_python_tries_nothing(does: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(template_trial, "STARTS", 0.3)
    monkeypatch.setattr(sys, "executable", python_that(tmp_path, f"exec {does}" if "sleep" in does else does))
    assert why_endless(LOOP + "{# " + does + " #}") is None


@pytest.mark.parametrize(("name", "value"), [("executable", None), ("executable", ""), ("frozen", True)])
def test_without_a_python_to_start_nothing_is_tried(name: str, value: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, name, value, raising=False)
    assert why_endless(LOOP + f"{{# {name} {value} #}}") is None


def test_where_no_limit_can_be_set_a_template_that_does_not_end_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "resource.py").write_text("RLIMIT_AS, RLIMIT_CORE = 0, 1\ndef setrlimit(*_): raise ValueError")
    monkeypatch.setattr(template_trial, "SECONDS", 1)
    code = template_trial._CHILD.replace("sys.path +=", f"sys.path.insert(0, {str(tmp_path)!r}); sys.path +=")
    monkeypatch.setattr(template_trial, "_CHILD", code)
    assert why_endless(CHATML + "{# unlimited #}") is None
    assert "does not end" in str(why_endless(LOOP + "{# unlimited #}"))


def test_a_good_template_costs_a_fraction_of_a_second_once() -> None:
    template = CHATML + "{# a new one #}"
    begun = time.monotonic()
    why_endless(template)
    once = time.monotonic() - begun
    why_endless(template)
    assert once < 2
    assert time.monotonic() - begun - once < 0.01


LATER = "{% if messages[0].content == 'now' %}" + LOOP + "{% endif %}" + CHATML


@pytest.mark.parametrize("is_main", [True, False])
def test_a_template_that_loops_on_one_chat_alone_is_ended_in_any_thread(is_main: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(template_run, "SECONDS", 0.5)
    tokenizer, caught = byte_level(LATER), list[DataError]()
    assert "hello" in render_chat(chat("hello"), tokenizer)

    def ask() -> None:
        with pytest.raises(DataError, match=r"does not end within 0\.5 seconds") as one:
            render_chat(chat("now"), tokenizer)
        caught.append(one.value)

    if is_main:
        ask()
    else:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_the_tokens_of_a_long_chat_have_all_their_time(monkeypatch: Any) -> None:
    class Slow:
        def apply_chat_template(self, turns: Any, *, tokenize: bool) -> str:
            time.sleep(0.4 if tokenize else 0)
            return "written"

    monkeypatch.setattr(template_run, "SECONDS", 0.1)
    few = Chat(turns=[], learned=[])
    assert template_run.apply(Slow(), few, tokenize=True) == template_run.apply(Slow(), few) == "written"


ERRORS = {
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{{ range(10 ** 9) }}": "OverflowError",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{% break %}": "SyntaxError",
    "{{ ''.__class__.__mro__ }}": "SecurityError",
}


@pytest.mark.parametrize("template", ERRORS)
def test_whatever_a_template_raises_on_a_chat_is_an_error_of_the_data(template: str) -> None:
    with pytest.raises(DataError, match=ERRORS[template]) as caught:
        render_chat(chat("hello"), byte_level(template))
    assert "\n" not in str(caught.value)
