"""The charts of the page: epochs, a stretch enlarged, smoothed, on a log scale, and taken along as a file."""

import csv
import io
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from apt_model.dashboard.report import make_report
from apt_model.events.recorded import WholeEvents
from apt_model.events.runfile import EVENTS
from apt_model.review.curves import curves_of
from tests.dashboard import lessons
from tests.dashboard.conftest import Open, Watched
from tests.dashboard.test_page_truth import truthful

SVG = "{http://www.w3.org/2000/svg}"
ENDS = "all => all.map(one => Number(one.value))"


@pytest.fixture
def lazy(open_page: Open, tmp_path: Path) -> Watched:
    """The view of charts of a report opened from disk, of a lesson with readings."""
    run = lessons.write(tmp_path / "run", list(truthful()))
    (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri())
    watched.show("lazy")
    watched.settle()
    return watched


def saved(watched: Watched, chart: str, kind: str) -> tuple[str, bytes]:
    """Name and content of the file that a chart's button gives."""
    menu = watched.page.locator(f".chart-{chart} .save")
    if not menu.evaluate("menu => menu.open"):
        menu.locator("summary").press("Enter")
    with watched.page.expect_download() as download:
        menu.locator("button", has_text=kind).press("Enter")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def drag(watched: Watched, chart: str, begin: float, end: float) -> None:
    over = watched.page.locator(f".chart-{chart} .u-over")
    over.scroll_into_view_if_needed()
    box: Any = over.bounding_box()
    mouse, high = watched.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + begin * box["width"], high)
    mouse.down()
    mouse.move(box["x"] + end * box["width"], high, steps=4)
    mouse.up()
    watched.settle()


def test_a_drag_enlarges_a_stretch_in_every_chart_and_a_double_click_shows_the_whole(lazy: Watched) -> None:
    lazy.go_to(33)
    drag(lazy, "losses", 0.25, 0.75)
    assert lazy.page.locator(".stretch").evaluate_all(ENDS) == pytest.approx([15, 45], abs=1)
    assert lazy.page.locator(".scrubber").input_value() == "33"  # a drag is no click
    drawing = ET.fromstring(saved(lazy, "rate", "SVG")[1])
    steps = [text.text for text in drawing.iter(f"{SVG}text")]
    assert "20" in steps
    assert "60" not in steps
    lazy.page.locator(".chart-losses .u-over").dblclick(position={"x": 300, "y": 30})
    lazy.settle()
    assert lazy.page.locator(".stretch").evaluate_all(ENDS) == [0, 60]
    assert lazy.page.locator(".scrubber").input_value() == "33"  # nor is a double click


@pytest.mark.slow
def test_the_same_by_keyboard_and_a_click_still_goes_to_a_step(lazy: Watched) -> None:
    first = lazy.page.locator(".stretch").first
    first.focus()
    lazy.page.keyboard.press("Control+A")
    lazy.page.keyboard.type("40")
    lazy.page.keyboard.press("Enter")
    lazy.settle()
    assert lazy.page.locator(".stretch").evaluate_all(ENDS) == [40, 60]
    lazy.page.locator(".whole").press("Enter")
    lazy.settle()
    assert lazy.page.locator(".stretch").evaluate_all(ENDS) == [0, 60]
    over = lazy.page.locator(".chart-losses .u-over")
    over.scroll_into_view_if_needed()
    box: Any = over.bounding_box()
    over.click(position={"x": box["width"] / 2, "y": 30})
    lazy.settle()
    assert lazy.page.locator(".scrubber").input_value() == "30"


@pytest.mark.slow
def test_epochs_are_lines_and_the_losses_say_why_they_step_down(lazy: Watched) -> None:
    drawing = ET.fromstring(saved(lazy, "losses", "SVG")[1])
    dashed = [line for line in drawing.findall(f"./{SVG}g/{SVG}line") if line.get("stroke-dasharray")]
    frame = (960 - 76 - 24) / 60  # a step's width in the drawing
    assert [float(line.get("x1", "")) for line in dashed] == pytest.approx([76 + 20 * frame, 76 + 40 * frame])
    assert "同样的句子又学了一遍" in lazy.page.locator(".chart-losses > .quiet").inner_text()
    lazy.page.locator(".switch.language").click()
    lazy.settle()
    assert "Each step down: the same sentences again." in lazy.page.locator(".chart-losses > .quiet").inner_text()
    assert "epoch" not in lazy.page.locator(".chart-rate > .quiet").inner_text()


def test_the_csv_of_every_chart_has_the_values_that_the_command_line_computes(lazy: Watched, tmp_path: Path) -> None:
    rows = []
    for chart in ("parts", "readings", "losses", "agreement", "gap", "rate", "norm", "speed"):
        name, content = saved(lazy, chart, "CSV")
        assert name == f"run-{chart}.csv"
        rows += list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert {row["run"] for row in rows} == {"run"}
    shown: dict[str, list[tuple[float, ...]]] = {}
    for row in rows:
        point = (float(row[name]) for name in ("step", "value", "low", "high") if row[name])
        shown.setdefault(row["curve"], []).append(tuple(point))
    expected = curves_of(WholeEvents(tmp_path / "run" / EVENTS))
    assert shown == {
        name: [tuple(one for one in point if one is not None) for point in points] for name, points in expected.items()
    }
    assert len(shown) == 13  # the lesson has no learned rows, and no gradients of cards


@pytest.mark.slow
def test_a_smoothed_line_lies_before_the_measured_one_as_tensorboard_smooths(lazy: Watched) -> None:
    lazy.page.locator(".smoothing").fill("0.5")
    lazy.settle()
    drawing = ET.fromstring(saved(lazy, "losses", "SVG")[1])
    raw, smooth = [line.get("d", "")[1:].split("L") for line in drawing.findall(f".//{SVG}path")[:2]]
    heights = [[float(point.split(",")[1]) for point in line] for line in (raw, smooth)]
    mean, expected = 0.0, []
    for index, height in enumerate(heights[0], start=1):
        mean = 0.5 * mean + 0.5 * height
        expected.append(mean / (1 - 0.5**index))  # heights are linear in the values
    assert heights[1] == pytest.approx(expected, abs=0.2)
    assert "50%" in lazy.page.locator(".bench-line .reading").inner_text()


@pytest.mark.slow
def test_a_log_scale_has_powers_of_ten_and_keeps_the_focus(lazy: Watched) -> None:
    button = lazy.page.locator(".chart-losses .tool[aria-pressed]")
    button.press("Enter")
    lazy.settle()
    assert button.get_attribute("aria-pressed") == "true"
    assert button.evaluate("button => button === document.activeElement")
    drawing = ET.fromstring(saved(lazy, "losses", "SVG")[1])
    levels = [text for text in drawing.iter(f"{SVG}text") if text.get("text-anchor") == "end"]
    places = {text.text: float(text.get("y", "")) for text in levels}
    assert places["0.1"] - places["1"] == pytest.approx(places["1"] - places["10"])
    assert lazy.page.locator(".chart-parts .tool[aria-pressed]").count() == 0  # shares may be 0


@pytest.mark.slow
def test_a_png_is_the_drawing_at_twice_its_size(lazy: Watched) -> None:
    drawing = ET.fromstring(saved(lazy, "losses", "SVG")[1])
    name, content = saved(lazy, "losses", "PNG")
    assert name == "run-losses.png"
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (
        2 * int(drawing.get("width", "")),
        2 * int(drawing.get("height", "")),
    )
