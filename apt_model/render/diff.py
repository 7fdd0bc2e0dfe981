"""Where the student departs from the teacher, character by character, in one line. Knows nothing of models."""

from difflib import SequenceMatcher

from rich.text import Text

MAX_CHARACTERS = 1_000
MISSING, ADDED = "red strike", "bold green underline"


def mark(text: str, style: str, *, colour: bool) -> Text:
    """One departure: styled where there is colour, between [- -] or {+ +} where there is none."""
    if colour:
        return Text(text, style=style)
    return Text(f"[-{text}-]" if style == MISSING else f"{{+{text}+}}")


def inline_diff(teacher_text: str, student_text: str, *, colour: bool) -> Text:
    """Both texts as one: what they share, what only the teacher said, what only the student said.

    Only the first 1,000 characters of each are compared.
    """
    teacher, student = teacher_text[:MAX_CHARACTERS], student_text[:MAX_CHARACTERS]
    line = Text()
    for kind, t0, t1, s0, s1 in SequenceMatcher(None, teacher, student, autojunk=False).get_opcodes():
        if kind == "equal":
            line.append(teacher[t0:t1])
            continue
        if t0 < t1:
            line.append_text(mark(teacher[t0:t1], MISSING, colour=colour))
        if s0 < s1:
            line.append_text(mark(student[s0:s1], ADDED, colour=colour))
    return line
