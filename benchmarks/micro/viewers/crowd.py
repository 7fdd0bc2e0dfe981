"""Load test with many viewers: delay of events, cost for the writing process, time until a stalled viewer is dropped.

The delay is the wall time at which a viewer has the whole event, minus the event's own `wall_time`.
"""

import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from apt_model.events.event import Event
from apt_model.events.records import RunFinished
from apt_model.events.runfile import EVENTS, RunFile
from benchmarks.markdown import head, row
from benchmarks.micro.viewers.lesson import BACKLOG, backlog, card, step
from benchmarks.micro.viewers.site import listen, request, watched

STEPS_PER_SECOND, CARD_EVERY = 50, 50


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
    with backlog() as (run, file):
        alone = write(file, seconds, BACKLOG)
        with watched(run) as site:
            hear, tell = multiprocessing.get_context("spawn").Pipe(duplex=False)
            path = f"/api/runs/{site.run}/events?from="
            audience = multiprocessing.get_context("spawn").Process(
                target=crowd, args=(site.port, f"{path}{(run / EVENTS).stat().st_size}", viewers, tell)
            )
            audience.start()
            while site.established() < viewers:
                time.sleep(0.1)
            cpu = site.cpu_seconds()
            idle = sleepers(site.port, f"{path}0", stalled)
            crowded = write(file, seconds, 2 * BACKLOG)
            cpu = site.cpu_seconds() - cpu
            file.emit(finish())
            latencies, heard = hear.recv()
            audience.join()
            memory = site.process.memory_info().rss / 2**20
            for client in idle:
                client.close()
    print(head(["", "p50", "p99", "most"]))
    for name, values in (("write, nobody there", alone), ("write, with the crowd", crowded), ("delivery", latencies)):
        figures = percentile(values, 50), percentile(values, 99)
        print(row([f"{name}, ms", *(f"{one:.3f}" for one in figures), f"{1_000 * max(values):.1f}"]))
    sent = list(range(2 * BACKLOG, 2 * BACKLOG + int(seconds * STEPS_PER_SECOND)))
    whole = sum(steps == sent for steps in heard)
    print(f"\n{whole} of {viewers} viewers heard all {len(sent)} steps, in order, none twice.")
    print(f"Server: {cpu:.1f} CPU seconds in {seconds:g}, {memory:.0f} MB.")


def finish() -> RunFinished:
    """The lesson's end, which lets viewers go."""
    return RunFinished(
        run_id="crowd", step=1, epochs=1, tokens=1, skipped_batches=0, seconds=1.0, first_loss=1.0, last_loss=1.0
    )


def measure_stalled(stalled: int) -> None:
    """How long those who take nothing are kept, from asking to the last one dropped."""
    with backlog() as (run, _), watched(run) as site:
        path, begun = f"/api/runs/{site.run}/events?from=0", time.perf_counter()
        clients = sleepers(site.port, path, stalled)
        open_now = 0
        while (count := site.established()) or not open_now:
            open_now = max(open_now, count)
            time.sleep(0.05)
        took = time.perf_counter() - begun
        print(f"{open_now} stalled viewers: the last was dropped {took:.2f} s after it asked.")
        for client in clients:
            client.close()
