"""Questions from the page in a run's directory: what is taken, in what order, and what nobody can make of the file."""

import json
import os
from pathlib import Path

import pytest

from apt_model.events.questions import (
    MOST_CHARACTERS,
    MOST_QUESTIONS,
    QUESTIONS,
    add_question,
    open_questions,
    questions_in,
)


def test_questions_are_taken_once_and_in_order_and_only_where_training_has_opened_the_file(tmp_path: Path) -> None:
    assert add_question(tmp_path, "early") == "closed"
    assert not (tmp_path / QUESTIONS).exists()
    open_questions(tmp_path)
    for prompt in ("b", " a ", "b", "互联网"):
        assert add_question(tmp_path, prompt) is None
    open_questions(tmp_path)  # as a resumed run does
    assert questions_in(tmp_path) == ["b", "a", "互联网"]


@pytest.mark.parametrize(
    ("prompt", "why"), [("", "empty"), ("  ", "empty"), ("a\x00b", "empty"), ("\ud800", "empty"), ("x" * 301, "long")]
)
def test_a_question_that_is_none_is_not_taken(prompt: str, why: str, tmp_path: Path) -> None:
    open_questions(tmp_path)
    assert add_question(tmp_path, prompt) == why
    assert (tmp_path / QUESTIONS).read_bytes() == b""


def test_a_run_takes_twenty_questions_and_no_more(tmp_path: Path) -> None:
    open_questions(tmp_path)
    assert [add_question(tmp_path, str(number)) for number in range(MOST_QUESTIONS)] == [None] * 20
    assert add_question(tmp_path, "one more") == "full"
    assert add_question(tmp_path, "3") is None, "it is asked already"


def test_lines_that_are_no_questions_are_left_out_and_no_line_is_read_before_its_end(tmp_path: Path) -> None:
    lines = ['{"prompt": "good"}', "{", '{"prompt": 3}', '{"prompt": "a\\u0000"}', '{"prompt": ""}', "[]", "\xff"]
    lines += [json.dumps({"prompt": "y" * (MOST_CHARACTERS + 1)}), '{"prompt": "last"}', '{"prompt": "half']
    (tmp_path / QUESTIONS).write_bytes("\n".join(lines).encode("latin-1"))
    assert questions_in(tmp_path) == ["good", "last"]
    (tmp_path / QUESTIONS).write_bytes(b'{"prompt": "z"}\n' + b"x" * 200_000)
    assert questions_in(tmp_path) == ["z"]


def test_a_link_or_a_pipe_in_the_files_place_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    (tmp_path / QUESTIONS).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        add_question(tmp_path, "a")
    assert elsewhere.read_bytes() == b""
    (tmp_path / QUESTIONS).unlink()
    os.mkfifo(tmp_path / QUESTIONS)
    with pytest.raises(OSError, match="not a regular file"):
        questions_in(tmp_path)
