"""The presenter: a card for the back of a room, by keyboard, in both languages, live, replayed and offline."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apt_model.dashboard.report import make_report
from apt_model.events.event import Event
from tests.dashboard import lessons
from tests.dashboard.conftest import Open, Serve, Watched

CLIPPED = """() => [...document.querySelectorAll("#presenter *")].filter(one => one.getClientRects().length)
    .filter(one => !one.closest(".film, .way-out, .unseen"))
    .filter(one => {
        const [box, at] = [one.getBoundingClientRect(), document.querySelector("#presenter").getBoundingClientRect()];
        return box.left < at.left || box.right > at.right || box.top < at.top || box.bottom > at.bottom;
    }).map(one => one.className)"""
OVERLAP = """() => {
    const parts = [".sheet-head", ".sayings", ".verdict-line", ".film"];
    const at = parts.map(one => document.querySelector(`#presenter ${one}`).getBoundingClientRect());
    return at.some((box, index) => index && box.top < at[index - 1].bottom - 1);
}"""
CUT = "all => all.map(one => one.scrollHeight > one.clientHeight + 20)"  # half a line: ink may stand out a little
HIDDEN = """() => [...document.body.children].filter(one => one.getClientRects().length && one.offsetHeight > 1)
    .map(one => one.id)"""
SIZE = "one => parseFloat(getComputedStyle(one).fontSize)"
LONG = {
    "zh": "互联网是全球最大的计算机网络，连接了数十亿设备。" * 30,
    "en": "The internet is the largest network of computers in the world, " * 30,
}


def room_of(watched: Watched) -> str:
    """What the room reads: the text of the presenter."""
    watched.settle()
    return str(watched.page.locator("#presenter").inner_text())


def report(folder: Path, events: Iterator[Event] | list[Event]) -> str:
    run = lessons.write(folder / "run", events)
    (folder / "report.html").write_text(make_report([run]), "utf-8")
    return (folder / "report.html").as_uri()


def test_the_presenter_is_gone_through_by_keyboard(open_page: Open, served: str) -> None:
    watched = open_page(served, width=1280, height=720)
    page = watched.page
    page.locator(".replay select").select_option("4")
    watched.show("topics")
    page.locator("#tab-topics").focus()
    page.keyboard.press("f")
    watched.settle()
    assert page.url.endswith("#present")
    assert page.evaluate(HIDDEN) == ["presenter"]
    assert "第 60 步" in room_of(watched)
    page.keyboard.press("ArrowLeft")
    assert "第 55 步" in room_of(watched)
    page.keyboard.press("PageUp")  # the hand piece of a projector
    assert "第 50 步" in room_of(watched)
    page.keyboard.press("ArrowRight")
    assert "第 55 步" in room_of(watched)
    assert page.locator("#presenter .lazy-figure").inner_text() == "8.3%"  # 1 − 55 / 60
    assert page.locator("#presenter .sheet").bounding_box()["width"] > 0.9 * page.viewport_size["width"]
    ground = "getComputedStyle(document.querySelector('#presenter')).backgroundColor"
    assert page.evaluate(ground) == "rgb(247, 244, 236)"
    page.keyboard.press("d")
    watched.settle()
    assert page.evaluate(ground) == "rgb(19, 27, 24)"
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('#presenter').innerText.includes('第 60 步')")
    page.keyboard.press("Escape")
    watched.settle()
    assert page.locator("#view-topics").is_visible()
    assert page.url.endswith("#topics")
    assert page.evaluate("document.activeElement.className") == "switch present"
    page.keyboard.press("Enter")
    watched.settle()
    assert page.evaluate(HIDDEN) == ["presenter"]
    page.go_back()
    watched.settle()
    assert page.locator("#view-topics").is_visible()
    assert not page.locator("#presenter").is_visible()


@pytest.mark.slow
def test_letters_typed_or_meant_for_the_browser_do_not_open_it(open_page: Open, served: str) -> None:
    page = open_page(served).page
    page.locator(".replay select").focus()
    page.keyboard.press("f")
    page.locator(".scrubber").focus()
    page.keyboard.press("Control+d")
    assert not page.locator("#presenter").is_visible()
    assert page.locator("html").get_attribute("data-theme") == "light"


@pytest.mark.slow
def test_several_cards_of_a_step_come_one_after_the_other(open_page: Open, tmp_path: Path) -> None:
    cards = [lessons.card(step, lazy) for step, lazies in {5: (0.1, 0.2), 10: (0.3,)}.items() for lazy in lazies]
    watched = open_page(report(tmp_path, [lessons.started(10), lessons.step_done(10), *cards]) + "#present", wait=False)
    seen = []
    for _ in range(3):
        room_of(watched)
        seen.append(watched.page.locator("#presenter .lazy-figure").inner_text())
        watched.page.keyboard.press("ArrowLeft")
    assert seen == ["30.0%", "20.0%", "10.0%"]


@pytest.mark.parametrize("language", ["zh", pytest.param("en", marks=pytest.mark.slow)])
def test_on_a_projector_nothing_is_clipped_and_a_text_too_long_ends_in_an_ellipsis(
    open_page: Open, tmp_path: Path, language: str
) -> None:
    long, short = LONG[language], lessons.TEXT
    texts = [(short, short, short), (short, short * 8, short * 8), (long, long, short), (long, long, long)]
    cards = [
        replace(lessons.card(step, 0.9999), given=given, teacher_text=teacher, student_text=student, remark=long,
                topic="非常非常长的教学主题名称一二三四五六七八九十", card_text=("continued", "predicted")[step % 2])
        for step, (given, teacher, student) in enumerate(texts, start=1)
    ]  # fmt: skip
    url = report(tmp_path, [lessons.started(9), *[lessons.step_done(card.step) for card in cards], *cards])
    watched = open_page(url, width=1280, height=720)
    page = watched.page
    if language == "en":
        page.locator(".switch.language").click()
        watched.settle()
    page.locator(".switch.present").click()
    cut = {}
    for card in reversed(cards):
        room_of(watched)
        assert page.evaluate(CLIPPED) == [], card.step
        assert not page.evaluate(OVERLAP), card.step
        assert page.locator("#presenter .sayings").evaluate("one => one.scrollHeight <= one.clientHeight")
        sizes = set(page.locator("#presenter .saying").evaluate_all(f"all => all.map({SIZE})"))
        assert len(sizes) == 1
        assert 36 <= sizes.pop() <= 44
        assert page.locator("#presenter .lazy-figure").evaluate(SIZE) == 96
        cut[card.step] = page.locator("#presenter .saying").evaluate_all(CUT)
        page.keyboard.press("ArrowLeft")
    assert cut[1] == [False, False, False]
    assert cut[3][1:] == [True, False]  # the long one is cut, the short one stays whole
    assert cut[4][1:] == [True, True]
    clamped = "one => [getComputedStyle(one).display, one.style.webkitLineClamp > 0]"
    page.keyboard.press("End")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    room_of(watched)
    given = page.locator("#presenter .voice.given .saying").inner_text()
    assert given.startswith("…")
    assert long.strip().endswith(given[1:].strip())  # they go on from its end
    assert page.locator("#presenter .voice.teacher .saying").evaluate(clamped) == ["flow-root", True]


@pytest.mark.slow
def test_live_the_presenter_goes_with_the_lesson(open_page: Open, serve: Serve, tmp_path: Path) -> None:
    events = list(lessons.lesson())
    half = next(index for index, event in enumerate(events) if event.step > 30)
    run = lessons.write(tmp_path / "run", events[:half])
    watched = open_page(serve(run).url + "#present", wait=False)
    watched.page.wait_for_function("() => document.querySelector('#presenter').innerText.includes('第 30 步')")
    lessons.write(run, events[half:-1], resumes=True)
    watched.page.wait_for_function("() => document.querySelector('#presenter').innerText.includes('第 60 步')")
    watched.page.keyboard.press("ArrowLeft")
    assert "第 55 步" in room_of(watched)
    for _ in range(2):
        watched.page.keyboard.press("ArrowRight")  # beyond the last card it follows again
    assert "第 60 步" in room_of(watched)
    watched.page.keyboard.press("f")
    watched.page.locator(".follow[aria-pressed=true]").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1440, 900), (1920, 1080), (390, 844), (844, 390)])
def test_it_fits_other_screens_as_well(open_page: Open, tmp_path: Path, size: tuple[int, int]) -> None:
    card = replace(lessons.card(5, 0.5), teacher_text=LONG["zh"], student_text=LONG["en"], given=LONG["zh"])
    url = report(tmp_path, [lessons.started(9), lessons.step_done(5), card]) + "#present"
    watched = open_page(url, width=1280, height=720, wait=False)
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    room_of(watched)
    assert watched.page.evaluate(CLIPPED) == []
    assert not watched.page.evaluate(OVERLAP)
    assert watched.page.locator("#presenter .sayings").evaluate("one => one.scrollHeight <= one.clientHeight")
