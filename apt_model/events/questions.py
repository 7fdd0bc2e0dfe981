"""Questions asked from the page while a run trains: a file in the run directory; pages append to it, training reads it.

Training opens it (`--ask`), and reads it before each exam; a page adds to it only where it is open. Both sides judge a
question by the same limits, since anyone who can write in the directory can write the file.
"""

import os
import unicodedata
from pathlib import Path
from typing import Literal

from apt_model.errors import DataError
from apt_model.events.parse import json_object
from apt_model.events.recorded import open_record
from apt_model.events.runfile import encode

QUESTIONS = "questions.jsonl"
MOST_QUESTIONS = 20  # of a run: each is answered at every exam from then on
MOST_CHARACTERS = 300
_MOST_BYTES = 64 * 1024  # read of the file: far more than its questions can be

Refusal = Literal["empty", "long", "full", "closed"]


def open_questions(directory: Path) -> None:
    """Let pages ask from now on; what was asked before stays.

    Raises:
        OSError: the file cannot be made.
    """
    (directory / QUESTIONS).touch()


def add_question(directory: Path, prompt: str) -> Refusal | None:
    """Append a question; why not, if it is not taken. One that was asked before is taken, and not asked again.

    Raises:
        OSError: the file cannot be read or written.
    """
    if not prompt.strip() or not _is_text(prompt):
        return "empty"
    if len(prompt) > MOST_CHARACTERS:
        return "long"
    try:
        known = questions_in(directory)
        if prompt.strip() in known:
            return None
        if len(known) >= MOST_QUESTIONS:
            return "full"
        _append(directory / QUESTIONS, encode({"prompt": prompt.strip()}) + b"\n")
    except FileNotFoundError:
        return "closed"
    return None


def questions_in(directory: Path) -> list[str]:
    """The distinct questions in the file, in order, at most `MOST_QUESTIONS`; lines that are none are left out.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open_record(directory / QUESTIONS) as file:
        whole, _, _ = file.read(_MOST_BYTES).rpartition(b"\n")
    found = dict.fromkeys(prompt for line in whole.split(b"\n") if (prompt := _prompt_of(line)) is not None)
    return list(found)[:MOST_QUESTIONS]


def _prompt_of(line: bytes) -> str | None:
    try:
        prompt = json_object(line).get("prompt")
    except DataError:
        return None
    fits = isinstance(prompt, str) and len(prompt) <= MOST_CHARACTERS and _is_text(prompt) and prompt.strip() == prompt
    return prompt or None if fits else None


def _is_text(prompt: str) -> bool:
    """Whether it has no control characters and no half of a surrogate pair."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in prompt)


def _append(path: Path, line: bytes) -> None:
    """Append a line by one write, so that two pages never mix theirs; never through a link, and never a new file."""
    flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
