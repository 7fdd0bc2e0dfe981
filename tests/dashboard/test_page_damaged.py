"""The page and a record that is damaged: said in both languages, and nothing that a record holds stops it."""

from pathlib import Path
from random import Random

import pytest

from apt_model.dashboard.report import make_report
from apt_model.errors import DataError
from apt_model.events.runfile import EVENTS
from tests.dashboard.conftest import VIEWS, Open, Serve
from tests.events.mutate import damaged_record, real_lines
from tests.events.test_odd_events import LINES as WHOLE
from tests.events.test_odd_events import odd_lines

QUICK, MANY, SEED = 3, 100, 18
SLIDE = """(slider, share) => {
    slider.value = share * slider.max;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
}"""
NAME = b"\xbf\xce"  # of a folder, as GBK has it


def written(run: Path, lines: list[bytes]) -> Path:
    run.mkdir(parents=True)
    (run / EVENTS).write_bytes(b"".join(line + b"\n" for line in lines))
    return run


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with a whole run and a damaged one, whose name is no UTF-8."""
    lines = real_lines()
    written(tmp_path / "runs" / "whole", lines)
    bad = [*lines[:4], b'{"kind":"step","step":5,"loss":NaN}', *lines[4:9], b"[" * 5_000, *lines[9:]]
    written(tmp_path / "runs" / NAME.decode("utf-8", "surrogateescape"), bad)
    return tmp_path / "runs"


def test_a_damaged_run_is_said_to_be_in_the_list_and_over_its_page(open_page: Open, serve: Serve, beside: Path) -> None:
    watched = open_page(serve(beside).url)
    watched.show("lessons")
    watched.page.get_by_text("第一处在第 5 行").first.wait_for()
    row = watched.page.locator("tr", has_text="\\xbf\\xce")
    assert "2 行读不了" in row.inner_text()
    assert "读不了" not in watched.page.locator("tr", has_text="whole").inner_text()
    row.get_by_role("button").first.click()
    over = watched.page.locator(".damages")
    over.get_by_text("第一处在第 5 行").wait_for()
    watched.page.locator(".switch.language").click()
    over.get_by_text("2 of its lines cannot be read and are left out; the first is line 5").wait_for()
    for view in VIEWS:
        watched.show(view)
        watched.settle()
    watched.show("now")
    assert watched.page.locator(".card").count() == 1


def test_a_line_damaged_while_one_watches_is_counted(open_page: Open, serve: Serve, tmp_path: Path) -> None:
    lines = real_lines()
    run = written(tmp_path / "run", lines[:12])
    watched = open_page(serve(run).url)
    with (run / EVENTS).open("ab") as file:
        file.write(b"nonsense\n" + lines[12] + b"\n\x00\n")
    watched.page.get_by_text("2 行读不了").wait_for()
    assert "第一处在第 13 行" in watched.page.locator(".damages").inner_text()


def try_pages(count: int, open_page: Open, folder: Path) -> None:
    """Walk through pages of odd lessons: whatever the page complains of fails the test."""
    dice, odd = Random(SEED), list(odd_lines())
    for number in range(count):
        lines = list(WHOLE)
        for at, line in dice.sample(odd, 40):
            lines[at] = line
            if dice.random() < 0.5:
                lines.append(line)
        if number % 2:
            lines = damaged_record(dice, lines).split(b"\n")[:-1]
        run = written(folder / str(number), lines)
        try:
            html = make_report([run])
        except DataError:
            continue
        file = folder / f"{number}.html"
        file.write_text(html, "utf-8")
        watched = open_page(file.as_uri(), wait=False)
        watched.page.locator("main").wait_for()
        for view in VIEWS:
            watched.show(view)
            watched.page.locator(".scrubber").evaluate(SLIDE, dice.random())
            watched.settle()
        assert watched.complaints == [], (number, watched.complaints)
        watched.page.close()


def test_what_a_strict_reader_takes_the_page_can_draw(open_page: Open, tmp_path: Path) -> None:
    try_pages(QUICK, open_page, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_hundred_odd_lessons_are_drawn(open_page: Open, tmp_path: Path) -> None:
    try_pages(MANY, open_page, tmp_path)
