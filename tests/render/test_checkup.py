"""The doctor's report: every line fits, hangs, and is harmless."""

import io

import pytest
from wcwidth import width

from apt_model.errors import DataError
from apt_model.events.checkup import Finding, wrong
from apt_model.i18n import Phrases
from apt_model.render.checkup import checkup_lines, show_findings

WELL = Finding(key="models", values={"teacher": "4,339,456", "student": "891,264", "share": "21%"})
ADVICE = Finding(key="lengths_cut", state="advice", values={"rows": 9, "cut": 2, "longest": 40, "limit": 16})
WRONG = wrong("tokenizers_differ", DataError("other"), count="1", first="7: 'a' / '\x1b[2Jb'")


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("columns", [24, 40, 78])
def test_every_line_fits_and_hangs_below_its_sentence(lang: str, columns: int) -> None:
    lines = list(checkup_lines([WELL, ADVICE, WRONG], Phrases.load(lang), columns))
    assert max(map(width, lines)) <= columns
    assert [line[0] for line in lines if not line.startswith("   ")][1:4] == ["✅", "🔧", "🔧"]
    assert "\x1b" not in "".join(lines)
    assert any("4,339,456" in line for line in lines)


@pytest.mark.parametrize(
    ("found", "last"),
    [
        ([WELL], "✅ No problem found: the lesson can begin"),
        ([WELL, ADVICE], "✅ The lesson can begin; 🔧 marks advice (1)"),
        ([WELL, ADVICE, WRONG, WRONG], "🔧 Not yet: 2 of these findings would spoil the training"),
    ],
)
def test_the_last_line_says_what_follows(found: list[Finding], last: str) -> None:
    assert list(checkup_lines(found, Phrases.load("en"), 78))[-1] == last


def test_an_ascii_terminal_gets_ascii_in_english() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    show_findings([WELL, ADVICE, WRONG], lang="zh", file=file)
    assert b"Models: teacher 4,339,456" in raw.getvalue()
