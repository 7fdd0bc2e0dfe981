"""The page in a real browser: a lesson as it happens, replayed, hostile, by keyboard, in both languages, on a phone."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apt_model.dashboard.report import make_report
from apt_model.events.records import Notice, ScoredObservation
from apt_model.render.sanitise import sanitise
from tests.dashboard import lessons
from tests.dashboard.conftest import Served, Watched

Open = Callable[..., Watched]
VIEWS = ("now", "lazy", "topics", "exam", "temperature", "reports")
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
SMALL_TARGETS = """() => [...document.querySelectorAll("button, select, input")]
    .filter(one => one.offsetParent && one.offsetHeight < 24).length"""
ALL_TEXT = """() => document.body.textContent
    + [...document.querySelectorAll("*")].flatMap(one => [...one.attributes].map(it => it.value)).join("")"""
WRITER = """
import sys, time
from pathlib import Path
from tests.dashboard import lessons
events = list(lessons.lesson())
for event in events[int(sys.argv[2]) : int(sys.argv[3])]:
    lessons.write(Path(sys.argv[1]), [event], resumes=True)
    time.sleep(float(sys.argv[4]))
"""


def count_of(watched: Watched, selector: str) -> int:
    return int(watched.page.locator(selector).count())


def film_steps(watched: Watched) -> list[str]:
    """The steps that have a card, by the strip over the slider."""
    return list(watched.page.locator(".film rect title").evaluate_all("all => all.map(one => one.textContent)"))


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    return lessons.write(tmp_path / "growing", list(lessons.lesson())[:12])


def append(run: Path, first: int, last: int, *, pause: float) -> None:
    subprocess.run([sys.executable, "-c", WRITER, str(run), str(first), str(last), str(pause)], check=True)


def expected_cards() -> list[ScoredObservation]:
    return [event for event in lessons.lesson() if isinstance(event, ScoredObservation)]


def expected_film() -> list[str]:
    return [f"第 {card.step} 步 {100 * card.laziness:.0f}%" for card in expected_cards()]


def test_the_page_goes_along_while_another_process_writes_the_lesson(
    open_page: Open, browser: object, growing: Path
) -> None:
    server = Served(growing)
    try:
        watched = open_page(server.url)
        watched.page.locator(".card[data-step='5']").wait_for()
        watched.page.locator(".status.live", has_text="直播中").wait_for()
        events = len(list(lessons.lesson()))
        append(growing, 12, events - 1, pause=0.005)
        watched.page.locator(".card[data-step='60']").wait_for()
        assert "第 60 步" in watched.page.locator("#news").inner_text()
        assert watched.page.locator(".replay .reading").inner_text() == "第 60 / 60 步"
        assert watched.page.locator(".follow").get_attribute("aria-pressed") == "true"
        append(growing, events - 1, events, pause=0)
        watched.page.locator(".status.over").wait_for()
        assert film_steps(watched) == expected_film()
    finally:
        server.kill()


def test_a_server_killed_and_started_again_loses_and_doubles_nothing(
    open_page: Open, browser: object, growing: Path
) -> None:
    server = Served(growing)
    try:
        watched = open_page(server.url)
        watched.page.locator(".card[data-step='5']").wait_for()
        append(growing, 12, 30, pause=0.002)
        server.kill()
        watched.page.locator(".status.waiting").wait_for()
        append(growing, 30, 60, pause=0)
        server = Served(growing, server.port)
        append(growing, 60, len(list(lessons.lesson())), pause=0.002)
        watched.page.locator(".status.over").wait_for()
        assert film_steps(watched) == expected_film()
        steps = watched.page.evaluate("import('./static/state.js').then(it => it.room.current.columns.step)")
        assert steps == list(range(1, 61))
    finally:
        server.kill()


def test_a_record_that_was_cut_back_is_read_anew(open_page: Open, browser: object, growing: Path) -> None:
    server = Served(growing)
    try:
        watched = open_page(server.url)
        watched.page.locator(".card[data-step='5']").wait_for()
        whole = (growing / "events.jsonl").read_bytes().splitlines(keepends=True)
        append(growing, 12, 24, pause=0)
        watched.page.locator(".card[data-step='15']").wait_for()
        (growing / "events.jsonl").write_bytes(b"".join(whole))
        watched.page.locator(".card[data-step='5']").wait_for()
        append(growing, 12, 18, pause=0)
        watched.page.locator(".card[data-step='10']").wait_for()
        assert film_steps(watched) == expected_film()[:2]
    finally:
        server.kill()


def test_the_slider_shows_the_card_of_every_step(open_page: Open, served: str) -> None:
    watched = open_page(served)
    cards = {card.step: card for card in expected_cards()}
    for step in range(5, 61):
        watched.go_to(step)
        newest = cards[step - step % 5]
        shown = watched.page.locator(".place-0 .card")
        assert shown.get_attribute("data-step") == str(newest.step)
        assert shown.locator(".judged-line strong").inner_text() == f"{100 * newest.laziness:.2f}%"
        assert "".join(shown.locator(".voice.student .token").all_inner_texts()) == newest.student_text
    watched.go_to(4)
    assert count_of(watched, ".card") == 0


def test_every_view_follows_the_slider(open_page: Open, served: str) -> None:
    watched = open_page(served)
    watched.go_to(25)
    watched.show("reports")
    assert count_of(watched, ".epochs tbody tr") == 1
    assert count_of(watched, ".verdict") == 0
    watched.show("exam")
    assert watched.page.locator(".answer.student p").inner_text() == "全球"
    watched.show("topics")
    assert watched.page.locator(".heatmap thead th").count() == 3  # the topics, epochs 1 and 2
    assert watched.page.locator(".heatmap .total td").first.inner_text() == "21%"  # mean of 5, 10, 15, 20 of 60 steps
    watched.show("lazy")
    assert watched.page.locator(".chart-losses .value").all_inner_texts() == ["0.16", "0.16", "0.16"]
    watched.go_to(60)
    assert watched.page.locator(".chart-losses .value").first.inner_text() == "0.0667"
    watched.show("reports")
    assert count_of(watched, ".epochs tbody tr") == 3
    assert "可以考虑减小模型" in watched.page.locator(".verdict .advice").inner_text()
    assert "【医疗】" in watched.page.locator(".verdict .advice").inner_text()
    watched.show("exam")
    assert watched.page.locator(".growth .said-then").all_inner_texts() == ["全球最大的网", "全球最大", "全球"]


def test_replay_plays_to_the_end_and_stops(open_page: Open, served: str) -> None:
    watched = open_page(served)
    watched.go_to(40)
    watched.page.locator(".replay select").select_option("4")
    watched.page.locator(".play").click()
    watched.page.locator(".play[aria-label='暂停']").wait_for()
    watched.page.wait_for_function("() => document.querySelector('.scrubber').value === '60'")
    watched.page.locator(".play[aria-label='播放']").wait_for()
    assert watched.page.locator(".card").get_attribute("data-step") == "60"


def test_the_temperature_softens_as_the_formula_says(open_page: Open, served: str) -> None:
    watched = open_page(served)
    watched.show("temperature")
    watched.page.locator("#temperature").fill("4")
    watched.settle()
    known = [share for _, share in lessons.ALTERNATIVES]
    weights = [share**0.25 for share in known]
    expected = [f"{100 * weight / sum(weights):.1f}%" for weight in weights]
    assert watched.page.locator(".pair-bar.soft .share").all_inner_texts() == expected
    rest = 95 * ((1 - sum(known)) / 95) ** 0.25  # evenly over the other 95 of 100 tokens
    assert f"{100 * rest / (rest + sum(weights)):.1f}%" in watched.page.locator(".masses .rows").inner_text()
    watched.page.locator("#temperature").focus()
    watched.page.keyboard.press("ArrowRight")
    watched.settle()
    assert watched.page.locator(".heating .reading").inner_text() == "T = 4.1"
    shares = watched.page.locator(".shares .key b").all_inner_texts()
    assert shares == ["70.0%", "30.0%"]  # kd and ce are equal here


def hostile_lesson() -> Iterator[object]:
    events = list(lessons.lesson(10))
    joined = " ".join(HOSTILE)
    for event in events:
        if isinstance(event, ScoredObservation) and event.detail is not None:
            pieces = tuple(HOSTILE[index % len(HOSTILE)] for index in range(len(lessons.TEXT)))
            tops = (tuple((text, 0.1) for text in HOSTILE[:5]),) * len(pieces)
            evil = replace(event.detail, teacher=pieces, student=pieces[::-1], teacher_top=tops, student_top=tops)
            texts = dict.fromkeys(("given", "teacher_text", "student_text", "input_text", "topic", "remark"), joined)
            yield replace(event, detail=evil, **texts)
            yield replace(event, detail=None, **texts)
        else:
            yield event
    yield Notice(run_id="r", step=10, key=HOSTILE[0], values={"x": joined})
    yield Notice(run_id="r", step=10, key="notice.checkpoint_skipped", values={"what": joined})


@pytest.mark.parametrize("kind", ["live", "report"])
def test_hostile_texts_stay_texts(open_page: Open, tmp_path: Path, kind: str) -> None:
    run = lessons.write(tmp_path / "run", list(hostile_lesson()))  # type: ignore[arg-type]
    server = Served(run) if kind == "live" else None
    try:
        if server is None:
            (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
        watched = open_page(server.url if server else (tmp_path / "report.html").as_uri())
        own = sorted(watched.page.evaluate("[...document.scripts].map(one => one.src || one.id)"))
        for view in VIEWS:
            watched.show(view)
            assert watched.page.evaluate("window.caught") is None
            assert (
                watched.page.evaluate("document.querySelectorAll('img, iframe, object, main script, main link').length")
                == 0
            )
            said = watched.page.evaluate(ALL_TEXT)
            shown = "".join(said.split("\n")) if kind == "live" else ""
            assert not any(mark in shown for mark in "\x1b\x07\x9b\u202e\u2066\u200b")
        watched.show("now")
        assert HOSTILE[0] in watched.page.locator(".side").inner_text()
        assert sorted(watched.page.evaluate("[...document.scripts].map(one => one.src || one.id)")) == own
        assert not [one for one in watched.requests if "evil.example" in one or one.endswith("/x")]
    finally:
        if server:
            server.kill()


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


def test_everything_can_be_done_by_keyboard(open_page: Open, served: str) -> None:
    watched = open_page(served)
    page = watched.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tab-now"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    watched.settle()
    assert page.locator("#view-topics").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-topics"
    page.keyboard.press("Home")
    watched.settle()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.index") == "0"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    peek = page.locator("#peek")
    assert peek.is_visible()
    assert "第 2 / 12 个词" in peek.inner_text()
    assert peek.locator(".teacher .rank-share").all_inner_texts() == [
        "60.0%",
        "20.0%",
        "10.0%",
        "5.00%",
        "2.50%",
        "2.50%",
    ]
    page.keyboard.press("Escape")
    assert not peek.is_visible()
    page.locator(".scrubber").focus()
    page.keyboard.press("ArrowLeft")
    watched.settle()
    assert page.locator(".replay .reading").inner_text() == "第 59 / 60 步"
    page.keyboard.press("PageUp")
    watched.settle()
    assert page.locator(".card").get_attribute("data-step") == "55"


def test_a_tap_opens_a_token_and_a_tap_elsewhere_closes_it(open_page: Open, served: str) -> None:
    watched = open_page(served, width=390, has_touch=True)
    watched.page.locator(".student .token").nth(3).tap()
    assert watched.page.locator("#peek").is_visible()
    watched.page.locator(".remark").tap()
    assert not watched.page.locator("#peek").is_visible()


def test_the_language_is_switched_and_remembered(open_page: Open, served: str) -> None:
    watched = open_page(served)
    assert watched.page.locator("html").get_attribute("lang") == "zh-CN"
    assert watched.page.locator("#tab-lazy").inner_text() == "为什么偷懒"
    watched.page.locator(".switch.language").click()
    watched.settle()
    assert watched.page.locator("html").get_attribute("lang") == "en"
    assert watched.page.locator("#tab-lazy").inner_text() == "Why lazy"
    assert watched.page.locator(".voice.teacher dd").get_attribute("lang") == "zh-CN"
    watched.page.reload()
    watched.page.locator(".card").wait_for()
    assert watched.page.locator("#tab-lazy").inner_text() == "Why lazy"
    for view in VIEWS:
        watched.show(view)
        labels = watched.page.locator(f"#view-{view} h2, #view-{view} h3, #view-{view} button").all_inner_texts()
        assert not [one for one in labels if "的" in one and lessons.TEXT not in one]


def test_paper_and_blackboard_follow_the_system_and_the_switch(open_page: Open, served: str) -> None:
    watched = open_page(served, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert watched.page.evaluate(ground) == "rgb(19, 27, 24)"
    watched.page.locator(".switch.theme").click()
    watched.settle()
    assert watched.page.evaluate(ground) == "rgb(247, 244, 236)"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_nothing_sticks_out_of_a_phone(open_page: Open, served_shelf: str, language: str) -> None:
    watched = open_page(served_shelf, width=360, height=640)
    if language == "en":
        watched.page.locator(".switch.language").click()
    for view in (*VIEWS, "lessons"):
        watched.show(view)
        watched.settle()
        assert watched.page.evaluate("document.documentElement.scrollWidth") == 360, view
        assert watched.page.evaluate(SMALL_TARGETS) == 0, view


def test_two_lessons_side_by_side(open_page: Open, served_shelf: str) -> None:
    watched = open_page(served_shelf)
    whole, old = watched.page.locator(".which select").first, watched.page.locator(".which select").nth(1)
    whole.select_option(label="whole")
    old.select_option(label="old")
    watched.page.locator(".place-1 .card").wait_for()
    watched.go_to(33)
    assert watched.page.locator(".card").evaluate_all("all => all.map(one => one.dataset.step)") == ["30", "30"]
    assert count_of(watched, ".place-0 .token") > 0
    assert watched.page.locator(".place-1 .voice.student dd").inner_text() == expected_cards()[5].student_text
    watched.show("lazy")
    assert watched.page.locator(".chart-losses .key li").count() == 6
    watched.show("lessons")
    assert count_of(watched, "#view-lessons tbody tr") == 2


def test_a_lesson_without_tokens_still_has_every_view(open_page: Open, shelf: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(make_report([shelf / "old"]), "utf-8")
    watched = open_page(file.as_uri())
    assert watched.page.locator(".voice.student dd").inner_text() == lessons.TEXT
    for view in VIEWS:
        watched.show(view)
    watched.show("temperature")
    assert "还没有" in watched.page.locator("#view-temperature .waiting").inner_text()
    watched.show("exam")
    assert watched.page.locator("#view-exam .waiting").inner_text() == "这堂课没有安排考试。"


def test_a_number_that_is_not_finite_is_said(open_page: Open, tmp_path: Path) -> None:
    events = [lessons.started(5), lessons.step_done(1), lessons.step_done(2, loss=math.nan), lessons.card(2, 0.5)]
    run = lessons.write(tmp_path / "run", events)
    (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri())
    assert watched.page.locator(".moment dd").first.inner_text() == "NaN"


def test_the_ledger_knows_mastered_from_forgotten(open_page: Open, tmp_path: Path) -> None:
    courses = {"mastered": (0.9, 0.1), "forgotten": (0.9, 0.1, 0.7), "hard": (0.9, 0.8), "once": (0.2,)}
    events: list[object] = [lessons.started(30)]
    step = 0
    for text, course in courses.items():
        for laziness in course:
            step += 1
            events += [lessons.step_done(step), lessons.card(step, laziness, text=text)]
    run = lessons.write(tmp_path / "run", events)  # type: ignore[arg-type]
    (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri())
    watched.show("topics")
    for state in courses:
        watched.page.locator(f"[data-filter={state}]").click()
        watched.settle()
        assert watched.page.locator(".questions .question").all_inner_texts() == [state]
