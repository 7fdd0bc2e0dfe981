"""A real browser, a real server beside it: both are processes of their own, so nothing here opens a socket."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard import lessons

VIEWS = ("now", "lazy", "topics", "exam", "temperature", "reports")
OF_THE_NETWORK = re.compile(r"ERR_CONNECTION|ERR_INCOMPLETE|status of 503")  # a server that a test takes away
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Watched:
    """A page in a browser that remembers what it asked for and what it complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def show(self, view: str) -> None:
        self.page.locator(f"#tab-{view}").click()
        self.page.wait_for_function("view => !document.getElementById(`view-${view}`).hidden", arg=view)

    def go_to(self, step: int) -> None:
        """Move the replay's slider, as a hand would."""
        self.page.locator(".scrubber").evaluate(
            "(slider, step) => { slider.value = step; slider.dispatchEvent(new Event('input', {bubbles: true})); }",
            step,
        )
        self.page.wait_for_function("step => document.querySelector('.scrubber').value === String(step)", arg=step)
        self.settle()

    def film(self) -> list[str]:
        """What the strip over the slider says of each card."""
        return list(self.page.locator(".film rect title").evaluate_all("all => all.map(one => one.textContent)"))

    def settle(self) -> None:
        """Wait until what changed is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


Open = Callable[..., Watched]


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of this folder alone: playwright keeps an event loop running in this thread meanwhile."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests drive a browser with playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page's tests need one")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a URL in a context of its own; whatever the page complains of fails the test."""
    opened: list[tuple[Watched, Any]] = []

    def open_it(
        url: str, *, width: int = 1280, height: int = 800, wait: bool = True, first_visit: bool = False, **more: Any
    ) -> Watched:
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        context.set_default_timeout(10_000)
        if not first_visit:
            context.add_init_script("try { localStorage.setItem('apt-toured', 'yes'); } catch (error) {}")
        watched = Watched(context.new_page())
        watched.page.on("request", lambda request: watched.requests.append(request.url))
        watched.page.on("pageerror", lambda error: watched.complaints.append(f"{error}\n{error.stack}"))
        watched.page.on(
            "console", lambda said: watched.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        opened.append((watched, context))
        watched.page.goto(url)
        if wait:
            watched.page.locator(".card").first.wait_for()
        return watched

    yield open_it
    for watched, context in opened:
        complaints = [one for one in watched.complaints if not OF_THE_NETWORK.search(one)]
        context.close()
        assert complaints == []


class Served:
    """`apt-model watch` as a process."""

    def __init__(self, runs: Path, port: int = 0) -> None:
        options = ["--no-open", "--lang", "en", "--port", str(port), str(runs)]
        command = [sys.executable, "-m", "apt_model", "watch", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if found is None:  # it said why on stderr
            self.kill()
        assert found, line
        self.url, self.port = found[0], int(found[1])

    def kill(self) -> None:
        """At once, as `kill -9` would; twice does no harm."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


Serve = Callable[..., Served]


@pytest.fixture
def serve(browser: Any) -> Iterator[Serve]:
    """Starts servers that are gone when the test is over."""
    started: list[Served] = []

    def start(run: Path, port: int = 0) -> Served:
        started.append(Served(run, port))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lessons: one as it is recorded now, one as older versions and other trainers record it."""
    folder = tmp_path_factory.mktemp("runs")
    lessons.write(folder / "old", lessons.lesson(tokens=False))
    lessons.write(folder / "whole", lessons.lesson())
    return folder


@pytest.fixture(scope="package")
def served(browser: Any, shelf: Path) -> Iterator[str]:
    """The address of one whole lesson."""
    server = Served(shelf / "whole")
    yield server.url
    server.kill()


@pytest.fixture(scope="package")
def served_shelf(browser: Any, shelf: Path) -> Iterator[str]:
    """The address of both."""
    server = Served(shelf)
    yield server.url
    server.kill()
