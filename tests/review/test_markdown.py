"""The summary in Markdown: what a reader of it sees is the text that was there, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import RunFinished, RunStarted, StepDone
from apt_model.i18n import Phrases
from apt_model.render.sanitise import sanitise
from apt_model.review.markdown import summary, verbatim
from tests.dashboard import lessons

COMMENT = "<!-- -->"
HOSTILE = [
    "<script>alert(1)</script>",
    "![x](http://evil.example/x.png) [a](javascript:alert(1)) <http://a.b>",
    "| cell | `code` **bold** _it_ ~~gone~~ $x^2$ $$y$$",
    "\\| \\` \\[a](b) \\",
    "# title",
    "- item",
    "1. item",
    "1) item",
    "> quote",
    "---",
    "===",
    "+ plus",
    "```",
    "&lt;b&gt; &#60;",
    "a\nb\r\n\n# c\td",
    "[a]: http://evil.example",
    "\x1b[31m\u202e\ud800",
]


def rendered(markdown: str) -> Any:
    """Tokens as GitHub would have them: HTML is let through, tables and strikethrough are on."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)


def seen(tokens: Any) -> str:
    """The text of one paragraph, which must be nothing but text."""
    kinds = [token.type for token in tokens]
    assert kinds == ["paragraph_open", "inline", "paragraph_close"]
    parts = [one for one in tokens[1].children if (one.type, one.content) != ("html_inline", COMMENT)]
    assert {one.type for one in parts} <= {"text", "text_special"}
    return "".join(one.content for one in parts)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_it_is(text: str) -> None:
    assert seen(rendered(verbatim(text))) == sanitise(text).strip()


@given(st.text(alphabet="\\`*_[]()|~$<>#+-=.!&:/1 aw", min_size=1, max_size=30).filter(lambda text: text.strip()))
@example("<!-- -->")  # as text: what we part addresses with
def test_no_text_becomes_markup(text: str) -> None:
    assert seen(rendered(verbatim(text))) == sanitise(text).strip()


def test_addresses_are_not_made_links() -> None:
    for address in ("http://evil.example/x", "https://evil.example", "www.evil.example", "a@evil.example"):
        assert COMMENT in verbatim(f"see {address}")
        assert verbatim(f"see {address}").replace(COMMENT, "") == f"see {address}"


def spoilt(event: Event, text: str) -> Event:
    if isinstance(event, RunStarted):
        return replace(
            event, teacher=replace(event.teacher, name=text), config={**event.config, "lang": text, "device": text}
        )
    if isinstance(event, ScoredObservation):
        return replace(event, topic=text)
    return replace(event, failures=(text,)) if isinstance(event, RunFinished) else event


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_of_hostile_texts_has_the_same_parts_as_any_other(text: str) -> None:
    pages = [
        summary([spoilt(event, words) for event in lessons.lesson()], Phrases.load("en"), name=words, pictures={})
        for words in ("plain", text)
    ]
    plain, hostile = map(rendered, pages)
    assert [token.type for token in plain].count("table_open") == 4
    assert [token.type for token in hostile] == [token.type for token in plain]
    cells = ["".join(c.content for c in token.children if c.content != COMMENT) for token in hostile if token.children]
    assert cells.count(sanitise(text).strip()) >= 3  # two settings, a failure


def test_the_numbers_are_the_lessons() -> None:
    page = summary(list(lessons.lesson()), Phrases.load("zh"), name="课", pictures={"losses": "plots/losses.png"})
    assert "| 2 | 0.5000 | 45.00% |" in page  # mean_loss and mean_laziness of the lesson's second epoch
    assert "![训练损失](plots/losses.png)" in page
    cards = [card.laziness for card in lessons.cards() if card.topic == "医疗"]
    assert f"| 医疗 | {len(cards)} | {100 * sum(cards) / len(cards):.2f}% |" in page


def test_a_lesson_that_goes_on_says_so() -> None:
    events = [event for event in lessons.lesson() if event.step < 30]
    assert any(isinstance(event, StepDone) for event in events)
    assert "第 29 步" in summary(events, Phrases.load("zh"), name="课", pictures={})
    assert "第 0 步" in summary([], Phrases.load("zh"), name="课", pictures={})


def test_a_summary_needs_a_directory_that_can_be_written(tmp_path: Path) -> None:
    from apt_model.errors import StorageError
    from apt_model.review.markdown import write_summary

    run = lessons.write(tmp_path / "run", lessons.lesson())
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_summary(run, tmp_path / "file", "zh")
