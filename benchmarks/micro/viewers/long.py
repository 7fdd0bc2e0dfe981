"""Load test with a record of a million steps: time and memory to write, report, serve and open it in a browser."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from apt_model.events.runfile import EVENTS, RunFile
from benchmarks.markdown import grid
from benchmarks.micro.viewers.lesson import POSITIONS, STEPS_AN_EPOCH, card, epoch, step
from benchmarks.micro.viewers.site import watched

CARD_EVERY = 500
CHROMIUM = "/usr/bin/chromium"
Rows = list[tuple[str, str]]


def measure_long(steps: int) -> None:
    """The table of a long record."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        rows = [*written(run, steps), *reported(run), *served(run)]
    print(grid([f"{steps:,} steps, {steps // CARD_EVERY:,} cards with {POSITIONS} tokens", ""], rows))


def written(run: Path, steps: int) -> Rows:
    """The record itself."""
    file, started = RunFile(run), time.perf_counter()
    for number in range(1, steps + 1):
        file.emit(step(number))
        if number % CARD_EVERY == 0:
            file.emit(card(number))
        if number % STEPS_AN_EPOCH == 0:
            file.emit(epoch(number))
    file.close()
    took = time.perf_counter() - started
    return [("written", f"{took:.0f} s"), ("the record", f"{(run / EVENTS).stat().st_size / 1e6:,.0f} MB")]


def reported(run: Path) -> Rows:
    """`apt-model report`."""
    code = (
        "import sys, resource; from apt_model.cli import main; main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    started = time.perf_counter()
    command = [sys.executable, "-c", code, "report", str(run)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    took, report = time.perf_counter() - started, run / "report.html"
    return [
        ("apt-model report", f"{took:.1f} s"),
        ("its memory, at most", f"{int(said.splitlines()[-1]) / 1024:.0f} MB"),
        ("the report", f"{report.stat().st_size / 1e6:.2f} MB"),
        ("the report opens in Chromium", opens_in(report.as_uri())),
    ]


def served(run: Path) -> Rows:
    """`apt-model watch`."""
    rows = []
    with watched(run) as site:
        history = f"/api/runs/{site.run}/history"
        rows.append(("server, at rest", f"{site.process.memory_info().rss / 2**20:.0f} MB"))
        for name in ("first history", "history again"):
            started = time.perf_counter()
            size = len(site.get(history))
            rows.append((name, f"{time.perf_counter() - started:.2f} s, {size / 1e6:.1f} MB"))
        rows.append(("server, afterwards", f"{site.process.memory_info().rss / 2**20:.0f} MB"))
        rows.append(("the live page opens in Chromium", opens_in(f"http://127.0.0.1:{site.port}/")))
    return rows


def opens_in(url: str) -> str:
    """Until the first card is there, the browser running already."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return "not measured: no playwright"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto("about:blank")
        started = time.perf_counter()
        page.goto(url)
        page.locator(".card").first.wait_for()
        took = time.perf_counter() - started
        browser.close()
    return f"{took:.2f} s"
