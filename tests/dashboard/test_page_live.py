"""The page while the lesson goes on: another process writes, the server comes and goes, the reader looks elsewhere."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from apt_model.events.runfile import encode, to_record
from tests.dashboard import lessons
from tests.dashboard.conftest import Open, Serve

FIRST = 12  # events that are there before the page is opened: the card of step 5 among them
WRITER = """
import sys, time
from pathlib import Path
from tests.dashboard import lessons
events = list(lessons.lesson())
for event in events[int(sys.argv[2]) : int(sys.argv[3])]:
    lessons.write(Path(sys.argv[1]), [event], resumes=True)
    time.sleep(float(sys.argv[4]))
"""


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    return lessons.write(tmp_path / "growing", list(lessons.lesson())[:FIRST])


def append(run: Path, first: int, last: int) -> None:
    """Write some more events, at once."""
    lessons.write(run, list(lessons.lesson())[first:last], resumes=True)


def append_elsewhere(run: Path, first: int, last: int, *, pause: float) -> None:
    """The same in another process, one by one."""
    subprocess.run([sys.executable, "-c", WRITER, str(run), str(first), str(last), str(pause)], check=True)


def test_the_page_goes_along_while_another_process_writes_the_lesson(
    open_page: Open, serve: Serve, growing: Path
) -> None:
    server = serve(growing)
    watched = open_page(server.url)
    watched.page.locator(".card[data-step='5']").wait_for()
    watched.page.locator(".status.live", has_text="直播中").wait_for()
    events = len(list(lessons.lesson()))
    size = (growing / "events.jsonl").stat().st_size
    assert next(one for one in watched.requests if "/events?" in one).endswith(f"/events?from={size}")
    append_elsewhere(growing, FIRST, events - 1, pause=0.005)
    watched.page.locator(".card[data-step='60']").wait_for()
    assert "第 60 步" in watched.page.locator("#news").inner_text()
    assert watched.page.locator(".replay .reading").inner_text() == "第 60 / 60 步"
    assert watched.page.locator(".follow").get_attribute("aria-pressed") == "true"
    append(growing, events - 1, events)
    watched.page.locator(".status.over").wait_for()
    assert watched.film() == lessons.film()


def test_looking_back_stops_following_and_a_button_catches_up(open_page: Open, serve: Serve, growing: Path) -> None:
    server = serve(growing)
    watched = open_page(server.url)
    watched.page.locator(".status.live").wait_for()
    append(growing, FIRST, 26)
    watched.page.locator(".card[data-step='20']").wait_for()
    watched.go_to(11)
    append(growing, 26, 41)
    watched.page.wait_for_function("() => document.querySelectorAll('.film title').length === 6")
    assert watched.page.locator(".card").get_attribute("data-step") == "10"
    assert watched.page.locator(".follow").get_attribute("aria-pressed") == "false"
    watched.page.locator(".follow").click()
    watched.page.locator(".card[data-step='30']").wait_for()
    assert watched.page.locator(".follow").get_attribute("aria-pressed") == "true"
    watched.go_to(11)
    watched.page.locator(".scrubber").press("End")
    append(growing, 41, 48)
    watched.page.locator(".card[data-step='35']").wait_for()


def test_a_card_that_is_being_read_stays_while_the_lesson_goes_on(open_page: Open, serve: Serve, growing: Path) -> None:
    server = serve(growing)
    watched = open_page(server.url)
    watched.page.locator(".status.live").wait_for()
    watched.page.locator(".student .token").first.focus()
    append(growing, FIRST, 26)
    watched.page.wait_for_function("() => document.querySelectorAll('.film title').length === 4")
    assert watched.page.locator(".card").get_attribute("data-step") == "5"
    watched.page.keyboard.press("Escape")
    watched.page.locator(".card[data-step='20']").wait_for()


def test_a_server_killed_and_started_again_loses_and_doubles_nothing(
    open_page: Open, serve: Serve, growing: Path
) -> None:
    server = serve(growing)
    watched = open_page(server.url)
    watched.page.locator(".card[data-step='5']").wait_for()
    append_elsewhere(growing, FIRST, 30, pause=0.002)
    server.kill()
    watched.page.locator(".status.waiting").wait_for()
    append(growing, 30, 60)
    server = serve(growing, server.port)
    append_elsewhere(growing, 60, len(list(lessons.lesson())), pause=0.002)
    watched.page.locator(".status.over").wait_for()
    assert watched.film() == lessons.film()
    steps = watched.page.evaluate("import('./static/state.js').then(it => it.room.current.columns.step)")
    assert steps == list(range(1, 61))


def test_a_record_that_was_cut_back_is_read_anew(open_page: Open, serve: Serve, growing: Path) -> None:
    server = serve(growing)
    watched = open_page(server.url)
    watched.page.locator(".card[data-step='5']").wait_for()
    whole = (growing / "events.jsonl").read_bytes().splitlines(keepends=True)
    append(growing, FIRST, 24)
    watched.page.locator(".card[data-step='15']").wait_for()
    (growing / "events.jsonl").write_bytes(b"".join(whole))
    watched.page.locator(".card[data-step='5']").wait_for()
    append(growing, FIRST, 18)
    watched.page.locator(".card[data-step='10']").wait_for()
    assert watched.film() == lessons.film()[:2]


def test_a_message_that_comes_twice_counts_once(open_page: Open, serve: Serve, growing: Path) -> None:
    server = serve(growing)
    lines = [encode(to_record(event)).decode() for event in lessons.lesson()]
    told = "".join(f"id: {10**6 + number}\ndata: {lines[number]}\n\n" for number in (12, 13, 12, 13, 14))
    watched = open_page("about:blank", wait=False)
    answer = {"status": 200, "content_type": "text/event-stream", "body": f"retry: 60000\n{told}"}
    watched.page.route("**/events?*", lambda route: route.fulfill(**answer))
    watched.page.goto(server.url)
    watched.page.locator(".card[data-step='10']").wait_for()
    assert watched.film() == lessons.film()[:2]


def test_a_hidden_page_gives_its_connection_back_and_catches_up(open_page: Open, serve: Serve, growing: Path) -> None:
    server = serve(growing)
    watched = open_page(server.url)
    watched.page.locator(".status.live").wait_for()
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    watched.page.evaluate(hide, True)
    source = "import('./static/state.js').then(it => it.room.current.source === null)"
    assert watched.page.evaluate(source) is True
    append(growing, FIRST, 41)
    assert watched.page.locator(".card").get_attribute("data-step") == "5"
    watched.page.evaluate(hide, False)
    watched.page.locator(".card[data-step='30']").wait_for()
    assert watched.film() == lessons.film()[:6]


def test_a_token_that_is_being_heated_stays_while_the_lesson_goes_on(
    open_page: Open, serve: Serve, growing: Path
) -> None:
    watched = open_page(serve(growing).url)
    watched.page.locator(".status.live").wait_for()
    watched.show("temperature")
    watched.page.locator(".pick").nth(2).click()
    kept = watched.page.locator(".shares h2").inner_text()
    watched.page.evaluate("() => { document.querySelector('.picks').kept = true; }")
    append(growing, FIRST, 26)
    watched.page.wait_for_function("kept => document.querySelector('.shares h2').innerText !== kept", arg=kept)
    assert watched.page.evaluate("document.querySelector('.picks').kept") is True
    watched.go_to(10)
    assert watched.page.evaluate("document.querySelector('.picks').kept") is None


def test_a_stream_that_is_refused_is_asked_for_again(open_page: Open, serve: Serve, growing: Path) -> None:
    server = serve(growing)
    watched = open_page("about:blank", wait=False)
    refused: list[str] = []

    def answer(route: Any) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=503)

    watched.page.route("**/events?*", answer)
    watched.page.goto(server.url)
    watched.page.locator(".status.live").wait_for()
    assert len(refused) == 1


@pytest.mark.slow
def test_six_lessons_that_all_go_on_take_turns_and_leave_the_server_free(
    open_page: Open, serve: Serve, tmp_path: Path
) -> None:
    runs = [
        lessons.write(tmp_path / f"run-{number}", [lessons.started(60), lessons.step_done(1)]) for number in range(7)
    ]
    server = serve(tmp_path)
    watched = open_page(f"{server.url}#lazy", wait=False)
    watched.page.locator(".chart-losses .value").first.wait_for()
    for number in range(7):
        choice = watched.page.locator(".which select").nth(1)
        if f"run-{number}" in choice.inner_text() and "six" not in choice.inner_text():
            choice.select_option(label=f"run-{number}")
            watched.settle()
    watched.page.wait_for_function("() => document.querySelectorAll('.chart-losses .value').length === 18")
    for run in runs:
        lessons.write(run, [lessons.step_done(2, loss=7.5)], resumes=True)
    news = "all => all.filter(one => one.textContent === '7.5').length"
    values = watched.page.locator(".chart-losses .value")
    end = time.monotonic() + 20
    while values.evaluate_all(news) < 6:
        assert watched.page.evaluate("async () => (await fetch('./api/runs')).ok")
        assert time.monotonic() < end
        watched.page.wait_for_timeout(100)
