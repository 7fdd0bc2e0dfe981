"""What does an audience cost, and how long a lesson can be? The page's server under load, on this machine only.

    python -m benchmarks.viewers crowd       # 200 viewers and 50 that take nothing, while a lesson is written
    python -m benchmarks.viewers training    # steps with the page open against steps without, in turn
    python -m benchmarks.viewers long        # a record of a million steps: report, server, browser

The server is `apt-model watch` as it comes, a process of its own; so is the crowd. Nothing leaves the loopback device.
Delivery is the wall time at which a viewer has the whole event less the one that stands in it. Prints Markdown tables.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from apt_model.events.records import EpochFinished, Event, RunFinished, ScoredObservation, StepDone
from apt_model.events.runfile import EVENTS, RunFile
from apt_model.events.tokens import TokenDetail

STEPS_PER_SECOND, CARD_EVERY = 50, 50
BACKLOG = 6_000  # steps that are there before, two megabytes: who takes nothing of them has stalled
TRAINED = {"demo": 50, "S": 15}  # steps a turn, by size
POSITIONS = 64  # tokens of a card
HEAD = re.compile(
    rb'data: \{"schema":\d+,"kind":"(?P<kind>\w+)","run_id":"crowd","step":(?P<step>\d+),"wall_time":(?P<time>[\d.]+),'
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """`apt-model watch`, running."""

    port: int
    run: str
    process: psutil.Process

    def get(self, path: str) -> bytes:
        """The body of an answer."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(request(self.port, path))
            return b"".join(iter(lambda: client.recv(1 << 20), b"")).partition(b"\r\n\r\n")[2]

    def established(self) -> int:
        """Connections that are open."""
        return sum(one.status == psutil.CONN_ESTABLISHED for one in self.process.net_connections("tcp"))

    def cpu_seconds(self) -> float:
        """Used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def request(port: int, path: str) -> bytes:
    """HTTP/1.0, so that a body comes without chunks."""
    return f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


@contextmanager
def watched(run: Path) -> Iterator[Site]:
    """The server of a run, as long as it is needed."""
    command = [sys.executable, "-m", "apt_model", "watch", str(run), "--no-open", "--lang", "en"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline() if process.stdout else ""
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", said)[0])
        site = Site(port=port, run="", process=psutil.Process(process.pid))
        yield Site(port=port, run=json.loads(site.get("/api/runs"))[0]["id"], process=site.process)
    finally:
        process.kill()
        process.communicate()


def step(number: int) -> StepDone:
    """A step as the loop tells it; its loss falls and jitters."""
    loss = 6 / (1 + number / 1_000) + (number * 7_919 % 1_000) / 2_000
    numbers = {
        "loss": loss,
        "kd": loss * 1.234567,
        "ce": loss * 0.987654,
        "learning_rate": 1.23456789e-3 / (1 + number),
    }
    return StepDone(
        run_id="crowd", step=number, epoch=1 + number // 50_000, batch=number % 50_000, grad_norm=1.234567, tokens=640,
        step_seconds=0.0123456789, skipped_batches=0, **numbers,
    )  # fmt: skip


def card(number: int) -> ScoredObservation:
    """A card with all that is known of its tokens."""
    top = tuple((chr(0x4E00 + number % 5_000 + rank), round(0.5 / (rank + 1), 4)) for rank in range(5))
    letters = tuple(chr(0x4E00 + (number + at) % 20_000) for at in range(POSITIONS))
    kl = tuple(round((number * at) % 97 / 31, 4) for at in range(POSITIONS))
    detail = TokenDetail(
        teacher=letters, student=letters, kl_nats=kl, teacher_top=(top,) * POSITIONS, student_top=(top,) * POSITIONS,
        teacher_entropy=kl, student_entropy=kl,
    )  # fmt: skip
    text = "".join(letters)
    return ScoredObservation(
        run_id="crowd", step=number, epoch=1 + number // 50_000, batch=number % 50_000, loss=1.0, given="青铜器上",
        teacher_text=text, student_text=text, input_text=text, normalised_kl=0.5, agreement=0.5, tokens=POSITIONS,
        similarity=0.5, laziness=number * 31 % 1_000 / 1_000, light="yellow", topic="文化", remark="好", detail=detail,
    )  # fmt: skip


def percentile(values: Sequence[float], percent: int) -> float:
    """In milliseconds; of seconds."""
    return 1_000 * statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def write(file: RunFile, seconds: float, begin: int) -> list[float]:
    """A lesson at its pace; how long each event took to write."""
    took, started = [], time.perf_counter()
    for number in range(int(seconds * STEPS_PER_SECOND)):
        time.sleep(max(0.0, started + number / STEPS_PER_SECOND - time.perf_counter()))
        events: list[Event] = [step(begin + number), *([card(begin + number)] if number % CARD_EVERY == 0 else [])]
        for event in events:
            before = time.perf_counter()
            file.emit(event)
            took.append(time.perf_counter() - before)
    return took


async def listen(port: int, path: str, latencies: list[float], steps: list[int]) -> None:
    """One viewer, until the lesson is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request(port, path))
    while line := await reader.readline():
        if found := HEAD.match(line):  # no more work than that: what is measured is the server, not its audience
            latencies.append(time.time() - float(found["time"]))
            if found["kind"] == b"step":
                steps.append(int(found["step"]))
        elif line == b"event: end\n":
            break
    writer.close()


def crowd(port: int, path: str, viewers: int, tell: Connection) -> None:
    """In a process of its own: viewers who listen."""

    async def all_of_them() -> None:
        latencies: list[list[float]] = [[] for _ in range(viewers)]
        steps: list[list[int]] = [[] for _ in range(viewers)]
        together = [listen(port, path, *one) for one in zip(latencies, steps, strict=True)]
        await asyncio.gather(*together)
        tell.send(([value for one in latencies for value in one], steps))

    asyncio.run(all_of_them())


def sleepers(port: int, path: str, count: int) -> list[socket.socket]:
    """Viewers who ask and take nothing."""
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(request(port, path))
        clients.append(client)
    return clients


def measure_crowd(viewers: int, stalled: int, seconds: float) -> None:
    """The table of the crowd."""
    with tempfile.TemporaryDirectory() as folder:
        file = RunFile(Path(folder) / "run")
        for number in range(BACKLOG):
            file.emit(step(number))
        alone = write(file, seconds, BACKLOG)
        with watched(Path(folder) / "run") as site:
            behind = (Path(folder) / "run" / EVENTS).stat().st_size
            hear, tell = multiprocessing.get_context("spawn").Pipe(duplex=False)
            path = f"/api/runs/{site.run}/events?from="
            audience = multiprocessing.get_context("spawn").Process(
                target=crowd, args=(site.port, f"{path}{behind}", viewers, tell)
            )
            audience.start()
            while site.established() < viewers:
                time.sleep(0.1)
            cpu = site.cpu_seconds()
            idle = sleepers(site.port, f"{path}0", stalled)
            crowded = write(file, seconds, 2 * BACKLOG)
            cpu = site.cpu_seconds() - cpu
            finish = RunFinished(
                run_id="crowd",
                step=1,
                epochs=1,
                tokens=1,
                skipped_batches=0,
                seconds=1.0,
                first_loss=1.0,
                last_loss=1.0,
            )
            file.emit(finish)
            latencies, steps = hear.recv()
            audience.join()
            memory = site.process.memory_info().rss / 2**20
            for client in idle:
                client.close()
    sent = list(range(2 * BACKLOG, 2 * BACKLOG + int(seconds * STEPS_PER_SECOND)))
    print("| | p50 | p99 | most |\n|---|---|---|---|")
    for name, values in (("write, nobody there", alone), ("write, with the crowd", crowded), ("delivery", latencies)):
        print(
            f"| {name}, ms | {percentile(values, 50):.3f} | {percentile(values, 99):.3f} | {1_000 * max(values):.1f} |"
        )
    whole = sum(one == sent for one in steps)
    print(f"\n{whole} of {viewers} viewers heard all {len(sent)} steps, in order, none twice.")
    print(f"Server: {cpu:.1f} CPU seconds in {seconds:g}, {memory:.0f} MB.")


def measure_stalled(stalled: int) -> None:
    """How long those who take nothing are kept, from asking to the last one dropped."""
    with tempfile.TemporaryDirectory() as folder:
        file = RunFile(Path(folder) / "run")
        for number in range(BACKLOG):
            file.emit(step(number))
        with watched(Path(folder) / "run") as site:
            begun = time.perf_counter()
            clients = sleepers(site.port, f"/api/runs/{site.run}/events?from=0", stalled)
            open_now = 0
            while (count := site.established()) or not open_now:
                open_now = max(open_now, count)
                time.sleep(0.05)
            print(
                f"{open_now} stalled viewers: the last was dropped {time.perf_counter() - begun:.2f} s after it asked."
            )
            for client in clients:
                client.close()


def measure_training(rounds: int) -> None:
    """The table of a training's steps, with one page open and without."""
    import torch

    from benchmarks.rounds import spread

    torch.set_num_threads(1)
    print("| size | wall time, page open / not | CPU time of the training | server's CPU, share of one core |")
    print("|---|---|---|---|")
    for size, steps in TRAINED.items():
        with tempfile.TemporaryDirectory() as folder:
            walls, cpus, shares = train_in_turn(size, rounds, steps, Path(folder))
        print(f"| {size} | {spread(walls, 3)} | {spread(cpus, 3)} | {statistics.median(shares):.3f} |", flush=True)


def train_in_turn(size: str, rounds: int, steps: int, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Ratios of wall and CPU time, a number a round; and what of a core the server took meanwhile."""
    import torch

    from apt_model.plugins.distillation_plugin import DistillationPlugin
    from benchmarks.rounds import interleaved
    from benchmarks.sizes import SIZES, make_pair

    shape, pair = SIZES[size], make_pair(SIZES[size], dtype=torch.float32)
    batches = [torch.randint(shape.vocabulary, (shape.rows, shape.length)) for _ in range(steps)]
    models = {"student_model": pair.student, "teacher_model": pair.teacher, "optimizer": pair.optimizer}
    lesson = {**models, "train_dataloader": batches, "num_epochs": 1, "device": "cpu", "sinks": []}
    shares: list[float] = []

    def train(run: str) -> None:
        shutil.rmtree(folder / run, ignore_errors=True)
        DistillationPlugin().distill_model(**lesson, run_dir=folder / run)

    with watched(folder / "seen") as site:

        def train_seen() -> None:
            before, wall = site.cpu_seconds(), time.perf_counter()
            train("seen")
            shares.append((site.cpu_seconds() - before) / (time.perf_counter() - wall))

        page = multiprocessing.get_context("spawn").Process(
            target=reconnecting, args=(site.port, f"/api/runs/{site.run}/events?from=0"), daemon=True
        )
        page.start()
        contenders: dict[str, Callable[[], None]] = {"alone": lambda: train("alone"), "seen": train_seen}
        for contender in contenders.values():
            contender()  # warms up
        shares.clear()
        laps = interleaved(contenders, rounds)
        page.kill()
        page.join()
    pairs = list(zip(laps["seen"], laps["alone"], strict=True))
    return [one.wall / other.wall for one, other in pairs], [one.cpu / other.cpu for one, other in pairs], shares


def reconnecting(port: int, path: str) -> None:
    """A page: it comes back whenever it is told that a record was begun anew, or is over."""
    while True:
        asyncio.run(listen(port, path, [], []))
        time.sleep(0.2)


def measure_long(steps: int) -> None:
    """The table of a long record."""
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        file, started = RunFile(run), time.perf_counter()
        for number in range(1, steps + 1):
            file.emit(step(number))
            if number % 500 == 0:
                file.emit(card(number))
            if number % 50_000 == 0:
                file.emit(epoch(number))
        file.close()
        rows.append(("written", f"{time.perf_counter() - started:.0f} s"))
        rows.append(("the record", f"{(run / EVENTS).stat().st_size / 1e6:,.0f} MB"))
        started = time.perf_counter()
        report = run / "report.html"
        code = (
            "import sys, resource; from apt_model.cli import main; main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, "report", str(run)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append(("apt-model report", f"{time.perf_counter() - started:.1f} s"))
        rows.append(("its memory, at most", f"{int(said.splitlines()[-1]) / 1024:.0f} MB"))
        rows.append(("the report", f"{report.stat().st_size / 1e6:.2f} MB"))
        rows.append(("the report opens in Chromium", opens_in(report.as_uri())))
        with watched(run) as site:
            rows.append(("server, at rest", f"{site.process.memory_info().rss / 2**20:.0f} MB"))
            for name in ("first history", "history again"):
                started = time.perf_counter()
                size = len(site.get(f"/api/runs/{site.run}/history"))
                rows.append((name, f"{time.perf_counter() - started:.2f} s, {size / 1e6:.1f} MB"))
            rows.append(("server, afterwards", f"{site.process.memory_info().rss / 2**20:.0f} MB"))
            rows.append(("the live page opens in Chromium", opens_in(f"http://127.0.0.1:{site.port}/")))
    print(f"| {steps:,} steps, {steps // 500:,} cards with {POSITIONS} tokens | |\n|---|---|")
    for row in rows:
        print(f"| {row[0]} | {row[1]} |")


def epoch(number: int) -> EpochFinished:
    """A report card."""
    return EpochFinished(
        run_id="crowd", step=number, epoch=number // 50_000, num_epochs=20, mean_loss=1.0, tokens=1, skipped_batches=0,
        seconds=1.0, samples=100, mean_laziness=0.5,
    )  # fmt: skip


def opens_in(url: str) -> str:
    """Until the first card is there, the browser running already."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return "not measured: no playwright"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.goto("about:blank")
        started = time.perf_counter()
        page.goto(url)
        page.locator(".card").first.wait_for()
        took = time.perf_counter() - started
        browser.close()
    return f"{took:.2f} s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("crowd", "training", "long"))
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--stalled", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of a long record")
    arguments = parser.parse_args()
    if arguments.what == "crowd":
        measure_crowd(arguments.viewers, arguments.stalled, arguments.seconds)
        measure_stalled(arguments.stalled)
    elif arguments.what == "training":
        measure_training(arguments.rounds)
    else:
        measure_long(arguments.steps)


if __name__ == "__main__":
    main()
