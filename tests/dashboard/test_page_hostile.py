"""The page against texts that mean harm, and the report, which asks for nothing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apt_model.dashboard.report import make_report
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, ExamTaken, Notice, RunFinished
from apt_model.events.results import Advice, ExamAnswer, TopicScore
from apt_model.render.sanitise import sanitise
from tests.dashboard import lessons
from tests.dashboard.conftest import VIEWS, Open, Serve

HOSTILE = (
    "<img src=x onerror=\"window.caught='img'\">",
    "</script><script>window.caught='script'</script>",
    "<!--<script>",
    "javascript:window.caught='url'",
    "\x1b[31mred\x1b]8;;http://evil.example\x07link\x9b",
    "\u202egnirts\u202c \u2066x\u2069 a\u200bb",
    "a" + "\u0301" * 40,
    "${window.caught='template'}{step}",
    "\ud83d lone \udc4d",
    "https://evil.example/pixel.png",
)
ALL_TEXT = """() => ["header", "main", "section", "title"].map(name => document.querySelector(name).textContent)
    .concat([...document.querySelectorAll("body *")].flatMap(one => [...one.attributes].map(it => it.value)))
    .join("")"""
SCRIPTS = "() => [...document.scripts].map(one => one.src || one.id).sort()"
STRANGERS = "() => document.querySelectorAll('img, iframe, object, embed, form, main script, main link, main a').length"


def hostile_lesson() -> Iterator[Event]:
    joined = " ".join(HOSTILE)
    texts = dict.fromkeys(("given", "teacher_text", "student_text", "input_text", "topic", "remark"), joined)
    pieces = tuple(HOSTILE[index % len(HOSTILE)] for index in range(len(lessons.TEXT)))
    tops = (tuple((text, 0.1) for text in HOSTILE[:5]),) * len(pieces)
    for event in lessons.lesson(20):
        if isinstance(event, ScoredObservation) and event.detail is not None:
            evil = replace(event.detail, teacher=pieces, student=pieces[::-1], teacher_top=tops, student_top=tops)
            yield replace(event, detail=None, **texts)
            yield replace(event, detail=evil, **texts)
        elif isinstance(event, EpochFinished):
            yield replace(event, topics=(TopicScore(topic=joined, samples=1, mean_laziness=0.5),))
        elif isinstance(event, RunFinished):
            yield replace(
                event, advice=(Advice(key=joined), Advice(key="laziest_topic", topic=joined)), failures=(joined,)
            )
        else:
            yield event
        if event.step == 20 and isinstance(event, ExamTaken):
            answers = tuple(ExamAnswer(prompt=text, teacher=text, student=joined) for text in HOSTILE)
            yield replace(event, answers=answers)
            yield Notice(run_id="r", step=20, key=HOSTILE[0])
            yield Notice(run_id="r", step=20, key="notice.checkpoint_skipped", values={"what": joined})


@pytest.mark.parametrize("kind", ["live", "report"])
def test_hostile_texts_stay_texts(open_page: Open, serve: Serve, tmp_path: Path, kind: str) -> None:
    run = lessons.write(tmp_path / "run", list(hostile_lesson()))
    report = tmp_path / "report.html"
    report.write_text(make_report([run]), "utf-8")
    watched = open_page(serve(run).url if kind == "live" else report.as_uri())  # which fails on any CSP violation
    own = watched.page.evaluate(SCRIPTS)
    for view in VIEWS:
        watched.show(view)
        watched.settle()
        assert watched.page.evaluate("window.caught") is None
        assert watched.page.evaluate(STRANGERS) == 0
        shown = watched.page.evaluate(ALL_TEXT)
        assert HOSTILE[0] in shown, view
        assert not set(shown) & set("\x1b\x07\x9b\u202e\u2066\u200b\ud83d"), view
    watched.show("now")
    watched.page.locator(".student .token").first.click()
    marked = HOSTILE[0].replace(" ", "␣")  # a token's blanks are marks, and a long one is cut
    assert marked[:23] + "…" in watched.page.locator("#peek").inner_text()
    assert watched.page.locator("#peek .teacher .rank-text").first.get_attribute("title") == marked
    assert watched.page.evaluate("window.caught") is None
    assert watched.page.evaluate(SCRIPTS) == own
    assert not [one for one in watched.requests if "evil.example" in one or one.endswith("/x")]


def test_texts_are_made_safe_as_the_terminal_does_it(open_page: Open, served: str) -> None:
    texts = [
        *HOSTILE,
        "老师：你好\n\t再见\r\n",
        "👨‍👩‍👧 🇨🇳 1️⃣ 👍🏽",
        "\ue000\ufdd0\x85é",
        "e\u0301",
        "\u0301x",
        "ال\u061cعربية",
    ]
    watched = open_page(served)
    script = "texts => import('./static/clean.js').then(it => JSON.parse(texts).map(text => it.clean(text)))"
    cleaned = watched.page.evaluate(script, json.dumps(texts))
    assert cleaned == [sanitise(text) for text in texts]


def test_the_report_asks_for_nothing_and_shows_the_lesson(open_page: Open, shelf: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(make_report([shelf / "whole", shelf / "old"]), "utf-8")
    watched = open_page(file.as_uri())
    for view in (*VIEWS, "lessons"):
        watched.show(view)
        watched.settle()
    assert watched.requests == [file.as_uri()] or watched.requests[1:] == [
        one for one in watched.requests[1:] if one.startswith("data:")
    ]
    watched.show("now")
    assert watched.page.locator(".card").get_attribute("data-step") == "60"
    watched.go_to(17)
    assert watched.page.locator(".card").get_attribute("data-step") == "15"
    assert watched.page.locator(".status").inner_text().endswith("离线报告")
