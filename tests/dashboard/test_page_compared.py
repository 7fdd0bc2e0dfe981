"""The table of runs, up to six of them compared, and links that lead to a place: all from an offline report."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from apt_model.dashboard.report import make_report
from apt_model.events.event import Event
from apt_model.events.records import RunFinished, RunStarted
from apt_model.events.results import MeanEstimate, ReadingSummary
from tests.dashboard import lessons
from tests.dashboard.conftest import VIEWS, Open, Watched

NAMES = ("apple", "berry", "cherry", "date", "elder", "fig", "grape")


def measured(agreement: float) -> ReadingSummary:
    seen, ce = MeanEstimate(value=agreement, error=0.01), MeanEstimate(value=4 - agreement, error=0.05)
    return ReadingSummary(
        rows=32, tokens=900, agreement=seen, kl=ce, ce=ce, laziness=replace(seen, value=1 - agreement), teacher_ce=None
    )


def lesson_of(number: int) -> list[Event]:
    """A lesson of its own temperature, later than the one before, and a little worse on held-out text."""
    events = []
    for event in lessons.lesson():
        if isinstance(event, RunStarted):
            config = {**event.config, "temperature": number + 1.0, "learning_rate": 1e-3}
            event = replace(event, config=config, wall_time=1_700_000_000.0 + 86_400 * number)
        if isinstance(event, RunFinished):
            event = replace(event, unseen=measured(0.9 - number / 10), grade="good")
        events.append(event)
    return events


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report of seven lessons."""
    folder = tmp_path_factory.mktemp("seven")
    runs = [lessons.write(folder / name, lesson_of(number)) for number, name in enumerate(NAMES)]
    (folder / "report.html").write_text(make_report(runs), "utf-8")
    return (folder / "report.html").as_uri()


def column(watched: Watched, name: str) -> list[str]:
    return list(watched.page.locator(f"#view-lessons tbody .figure-{name}").all_inner_texts())


def names(watched: Watched) -> list[str]:
    return list(watched.page.locator("#view-lessons tbody th").all_inner_texts())


def test_the_table_of_runs_sorts_searches_and_measures_against_a_baseline(open_page: Open, seven: str) -> None:
    watched = open_page(f"{seven}#lessons&lang=en", wait=False)
    assert names(watched) == list(reversed(NAMES))  # the newest first
    watched.page.locator(".figure-loss .sort").press("Enter")
    watched.settle()
    assert names(watched) == list(NAMES)
    assert watched.page.locator("#view-lessons th.figure-loss").get_attribute("aria-sort") == "ascending"
    assert column(watched, "loss")[:2] == ["3.100", "3.200"]
    assert column(watched, "agreement")[0] == "90.0%"
    assert column(watched, "laziness")[0] == "10.0%"
    assert column(watched, "models")[0] == "teacher 4 M → student 900 K"
    assert [column(watched, name)[1] for name in ("temperature", "alpha", "rate", "steps")] == [
        "2",
        "0.7",
        "0.001",
        "60",
    ]
    assert column(watched, "verdict")[0].startswith("good · ")
    watched.page.locator("[data-act='baseline 2']").press("Enter")
    watched.settle()
    assert names(watched) == ["cherry", "apple", "berry", "date", "elder", "fig", "grape"]
    assert watched.page.locator("tbody tr").nth(1).locator(".apart").all_inner_texts() == ["−0.200", "+20.0", "−20.0"]
    assert watched.page.locator("tbody tr").nth(1).locator(".apart.better").count() == 3
    watched.page.locator(".sought").fill("berry t=2")
    watched.settle()
    assert names(watched) == ["cherry", "berry"]  # the baseline stays
    assert watched.page.locator(".found").inner_text() == "1 of 7"


@pytest.mark.slow
def test_six_runs_are_compared_in_every_view_and_the_seventh_has_to_wait(open_page: Open, seven: str) -> None:
    watched = open_page(f"{seven}#lessons&run=0", wait=False)
    for number in range(1, 6):
        watched.page.locator(f"[data-act='compare {number}']").press("Enter")
        watched.settle()
    assert watched.page.locator("[data-act='compare 6']").is_disabled()
    assert watched.page.locator(".compared thead th").all_inner_texts() == ["课", "temperature"]
    assert watched.page.locator(".compared td[data-head]").all_inner_texts() == ["1", "2", "3", "4", "5", "6"]
    each = {"now": ".card", "topics": ".heatmap", "exam": ".bench", "temperature": ".meter.loss", "reports": ".verdict"}
    for view, part in each.items():
        watched.show(view)
        watched.settle()
        assert watched.page.locator(f"#view-{view} {part}").count() == 6, view
    watched.show("lazy")
    watched.settle()
    assert watched.page.locator(".chart-losses .value").count() == 18
    colours = "all => all.map(one => getComputedStyle(one).backgroundColor)"
    assert len(set(watched.page.locator(".chart-losses .run-mark").evaluate_all(colours))) == 6
    dashes = watched.page.locator(".chart-losses thead path").evaluate_all(
        "all => all.map(one => one.getAttribute('stroke-dasharray'))"
    )
    assert len(set(dashes)) == 3
    watched.page.locator(".compared button").nth(1).press("Enter")  # cherry goes, the others keep their colours
    watched.settle()
    assert watched.page.locator(".compared .run-mark").all_inner_texts() == ["1", "2", "4", "5", "6"]
    watched.page.locator(".which select").nth(1).select_option(label="grape")
    watched.settle()
    assert watched.page.locator(".compared tr:last-child .run-mark").inner_text() == "3"


def test_a_link_leads_to_run_view_step_token_language_and_others(open_page: Open, seven: str) -> None:
    watched = open_page(f"{seven}#now&run=2&with=0,4&step=33&token=3&lang=en")
    watched.page.locator("#peek").wait_for()
    assert "Token 4 of 12" in watched.page.locator("#peek").inner_text()
    assert watched.page.locator("html").get_attribute("lang") == "en"
    assert watched.page.locator(".card").evaluate_all("all => all.map(one => one.dataset.step)") == ["30", "30", "30"]
    assert watched.page.locator(".desk .lesson-name").all_inner_texts() == ["1cherry", "2apple", "3elder"]
    assert watched.page.locator(".scrubber").input_value() == "33"
    watched.page.keyboard.press("Escape")
    watched.show("temperature")
    watched.page.wait_for_function("() => location.hash.startsWith('#temperature&run=2&with=0,4&step=33')")


@pytest.mark.slow
def test_back_and_forward_go_through_views_and_lessons(open_page: Open, seven: str) -> None:
    watched = open_page(seven)
    watched.page.wait_for_function("() => location.hash === '#now&run=0&lang=zh'")
    watched.show("lazy")
    watched.page.locator(".which select").first.select_option(label="fig")
    watched.page.wait_for_function("() => location.hash === '#lazy&run=5&lang=zh'")
    watched.page.go_back()
    watched.page.wait_for_function("() => document.title.startsWith('apple')")
    assert watched.page.locator("#view-lazy").is_visible()
    watched.page.go_back()
    watched.page.locator("#view-now .card").wait_for()
    watched.page.go_forward()
    watched.page.locator("#view-lazy .chart").first.wait_for()


@pytest.mark.slow
def test_a_copied_link_opens_at_the_same_place(open_page: Open, seven: str) -> None:
    watched = open_page(f"{seven}#exam&run=1&with=3", permissions=["clipboard-read", "clipboard-write"], wait=False)
    watched.page.locator(".question-sheet").first.wait_for()
    watched.go_to(25)
    watched.page.locator(".switch.copy").press("Enter")
    watched.page.locator(".told.shown").wait_for()
    copied = watched.page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{seven}#exam&run=1&with=3&step=25&lang=zh"
    other = open_page(copied, wait=False)
    other.page.locator(".question-sheet").first.wait_for()
    shown = "document.querySelector('main').innerText"
    assert other.page.evaluate(shown) == watched.page.evaluate(shown).replace("链接已复制：打开就是这一处", "").rstrip(
        "\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "hash_part", ["#nonsense&run=%E4&step=-1&with=,,&lang=xx", "#now&run=99&token=999&step=999999999"]
)
def test_a_link_that_leads_nowhere_still_shows_the_lesson(open_page: Open, seven: str, hash_part: str) -> None:
    watched = open_page(seven + hash_part)
    assert watched.page.locator(".card").get_attribute("data-step") == "60"


def test_a_card_is_saved_as_a_png(open_page: Open, seven: str) -> None:
    watched = open_page(f"{seven}#now&step=20")
    with watched.page.expect_download() as download:
        watched.page.locator(".card-acts button").press("Enter")
    assert download.value.suggested_filename == "apple-卡片-20.png"
    content = Path(download.value.path()).read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1920
    assert 600 < height < 1600


@pytest.mark.slow
def test_a_bare_view_in_the_address_is_still_a_link(open_page: Open, seven: str) -> None:
    watched = open_page(f"{seven}#topics", wait=False)
    watched.page.locator("#view-topics .heatmap").wait_for()
    assert watched.page.locator("#view-topics").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 760, 1280])
def test_nothing_sticks_out_while_six_are_compared(open_page: Open, seven: str, width: int) -> None:
    watched = open_page(f"{seven}#now&run=0&with=1,2,3,4,5&lang=en", width=width)
    for view in (*VIEWS, "lessons"):
        watched.show(view)
        watched.settle()
        assert watched.page.evaluate("document.documentElement.scrollWidth") == width, view


@pytest.mark.slow
def test_where_the_browser_lets_nobody_copy_the_link_is_shown_to_be_taken(open_page: Open, seven: str) -> None:
    watched = open_page(f"{seven}#now&run=3")
    watched.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    shown: list[str] = []
    watched.page.once("dialog", lambda dialog: (shown.append(dialog.default_value), dialog.dismiss()))
    watched.page.locator(".switch.copy").press("Enter")
    watched.settle()
    assert shown == [f"{seven}#now&run=3&lang=zh"]


@pytest.mark.slow
def test_a_link_into_a_served_lesson_waits_for_its_records(open_page: Open, served_shelf: str, shelf: Path) -> None:
    watched = open_page(served_shelf)
    watched.page.locator(".which select").first.select_option(label="whole")
    watched.page.locator(".place-0 .token").first.wait_for()
    watched.go_to(22)
    watched.page.wait_for_function("() => location.hash.includes('step=22')")
    again = open_page(watched.page.url)
    again.page.locator(".place-0 .token").first.wait_for()
    assert again.page.locator(".card").get_attribute("data-step") == "20"
    assert again.page.locator(".scrubber").input_value() == "22"
