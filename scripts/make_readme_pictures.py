"""Makes the README's pictures out of a recorded lesson: the animation, a page of curves, the exam's growth.

    python scripts/make_readme_pictures.py RUN zh docs/pictures

RUN is a run directory of `apt-model demo`; its report is opened in Chromium and photographed. Needs playwright and a
Chromium on the PATH. Knows nothing of training.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from apt_model.dashboard.report import write_report
from apt_model.events.cards import ScoredObservation
from apt_model.events.runfile import read_events

WIDTH, HEIGHT = 1040, 940
FILM_SECONDS = 20
COLOURS = 96  # of a frame: paper, ink, and the curves apart from each other
LAST_VIEWS = ("lazy", "exam", "reports")
LOCALES = {"zh": "zh-CN", "en": "en-US"}


def main(run: Path, lang: str, folder: Path) -> None:
    """Write `lesson.LANG.gif`, `page.LANG.png` and `exam.LANG.png` into the folder."""
    events = list(read_events(run))
    steps = sorted({event.step for event in events if isinstance(event, ScoredObservation)})
    end = max(event.step for event in events)
    with tempfile.TemporaryDirectory() as spare, sync_playwright() as driver:
        report = write_report([run], Path(spare) / "report.html")
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, locale=LOCALES[lang])
        page.add_init_script("localStorage.setItem('apt-toured', 'yes')")  # no tour over the pictures
        page.goto(report.as_uri())
        page.locator(".card").first.wait_for()
        frames = [photograph(page, "now", step) for step in steps]
        last = {view: photograph(page, view, end) for view in LAST_VIEWS}
        chromium.close()
    save_film([*frames, *last.values()], folder / f"lesson.{lang}.gif")
    for view, name in (("lazy", "page"), ("exam", "exam")):
        reduced(last[view]).save(folder / f"{name}.{lang}.png", optimize=True)


def photograph(page: Any, view: str, step: int) -> Image.Image:
    """The page's view at a step of the replay, as it stands in the window."""
    page.locator(f"#tab-{view}").click()
    page.locator(".scrubber").evaluate(
        "(slider, step) => { slider.value = step; slider.dispatchEvent(new Event('input', {bubbles: true})); }", step
    )
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(300)  # a curve is drawn a little later
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save_film(frames: list[Image.Image], path: Path) -> None:
    """An animation of `FILM_SECONDS` that begins again at its end."""
    each = round(1000 * FILM_SECONDS / len(frames))
    first, *rest = map(reduced, frames)
    first.save(path, save_all=True, append_images=rest, duration=each, loop=0, optimize=True)


def reduced(picture: Image.Image) -> Image.Image:
    """The picture in few colours that are far apart, without dithering, which would cost more bytes than it gives."""
    return picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
