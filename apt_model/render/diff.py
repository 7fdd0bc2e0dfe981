"""Character diff of the teacher's and the student's text. Knows nothing of models, or of where it is shown."""

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from rich.text import Text

MAX_CHARACTERS = 1_000
MISSING, ADDED = "red strike", "bold green underline"


class Stretch(NamedTuple):
    """A run of characters: in both texts, only in the teacher's ("missing"), or only in the student's ("added")."""

    kind: Literal["same", "missing", "added"]
    text: str


def departures(teacher_text: str, student_text: str) -> Iterator[Stretch]:
    """Both texts as one sequence of stretches; where they differ, the teacher's part comes first.

    Only the first 1,000 characters of each are compared.
    """
    teacher, student = teacher_text[:MAX_CHARACTERS], student_text[:MAX_CHARACTERS]
    for kind, t0, t1, s0, s1 in SequenceMatcher(None, teacher, student, autojunk=False).get_opcodes():
        if kind == "equal":
            yield Stretch("same", teacher[t0:t1])
            continue
        if t0 < t1:
            yield Stretch("missing", teacher[t0:t1])
        if s0 < s1:
            yield Stretch("added", student[s0:s1])


def mark(text: str, style: str, *, colour: bool) -> Text:
    """One difference: styled if there is colour, else between [- -] or {+ +}."""
    if colour:
        return Text(text, style=style)
    return Text(f"[-{text}-]" if style == MISSING else f"{{+{text}+}}")


def inline_diff(teacher_text: str, student_text: str, *, colour: bool) -> Text:
    """Both texts in one line: common parts, those only in the teacher's, and those only in the student's marked."""
    line = Text()
    for kind, text in departures(teacher_text, student_text):
        if kind == "same":
            line.append(text)
        else:
            line.append_text(mark(text, MISSING if kind == "missing" else ADDED, colour=colour))
    return line
