"""A server of ours in a thread, clients that speak HTTP by hand, and run files made by the real writer."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import Any

from apt_model.dashboard.assets import Asset
from apt_model.dashboard.server import Server, listen
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import RunFinished, StepDone
from apt_model.events.runfile import EVENTS, RunFile

ASSETS = {
    "index.html": Asset(b"<!doctype html><title>page</title>", "text/html; charset=utf-8"),
    "main.js": Asset(b"1", "text/javascript; charset=utf-8"),
    "vendor/x.js": Asset(b"2", "text/javascript; charset=utf-8"),
}


def step(number: int, loss: float = 1.0, **more: Any) -> StepDone:
    values = {"epoch": 1, "batch": number - 1, "kd": loss, "ce": loss, "learning_rate": 1e-3, "grad_norm": 1.0}
    values |= {"tokens": 64, "step_seconds": 0.01, "skipped_batches": 0, "wall_time": 1_000.0 + number}
    return StepDone(run_id="r", step=number, loss=loss, **values | more)


def card(number: int, laziness: float = 0.5, text: str = "人工智能", **more: Any) -> ScoredObservation:
    values = {"epoch": 1, "batch": 0, "loss": 1.0, "given": "人", "teacher_text": text, "student_text": text}
    values |= {"input_text": text, "normalised_kl": 0.5, "agreement": 0.5, "tokens": 4, "similarity": 0.5}
    values |= {"light": "yellow", "topic": "通用", "remark": "好", "wall_time": 1_000.0 + number}
    return ScoredObservation(run_id="r", step=number, laziness=laziness, **values | more)


def verdict(number: int) -> RunFinished:
    return RunFinished(
        run_id="r", step=number, epochs=1, tokens=1, skipped_batches=0, seconds=1.0, first_loss=2.0, last_loss=1.0
    )


def write(run: Path, *events: Event) -> Path:
    """Append to a run's record, as the trainer does."""
    file = RunFile(run, resumes=(run / EVENTS).exists())
    for event in events:
        file.emit(event)
    file.close()
    return run / EVENTS


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Stream:
    """An EventSource by hand: what it has heard, and where it is."""

    socket: socket.socket
    place: int = 0
    heard: list[dict[str, Any]] = field(default_factory=list)
    last: str = ""
    pending: bytes = b""

    def listen(self, *, until: str | int) -> "Stream":
        """Until an event of that name, that many records, or the end of the connection."""
        while self.last != until and len(self.heard) != until:
            while b"\n\n" not in self.pending:
                more = self.socket.recv(65_536)
                if not more:
                    return self
                self.pending += more
            block, _, self.pending = self.pending.partition(b"\n\n")
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            name = fields.get(b"event", b"").decode()
            self.place = int(fields.get(b"id", self.place))
            if name:
                self.last = name
            elif b"data" in fields:
                self.heard.append(json.loads(fields[b"data"]))
        return self

    def close(self) -> None:
        self.socket.close()


@dataclass
class Site:
    port: int
    thread: Thread
    server: Server
    streams: list[Stream] = field(default_factory=list)

    def ask(self, request: bytes) -> Answer:
        """Send bytes, read all that comes."""
        with self.open(request) as connection:
            text = b"".join(iter(lambda: connection.recv(65_536), b""))
        return parse(text)

    def open(self, request: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(request)
        return connection

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return self.ask(self.request(path, method, **headers))

    def request(self, path: str, method: str = "GET", version: str = "1.1", **headers: str) -> bytes:
        given = {"Host": f"127.0.0.1:{self.port}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in given.items() if value)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def stream(self, run: str, place: int = 0, **headers: str) -> Stream:
        """Follow a run; HTTP/1.0, so that the body comes without chunks."""
        connection = self.open(self.request(f"/api/runs/{run}/events?from={place}", version="1.0", **headers))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert b" 200 " in head.split(b"\r\n")[0]
        self.streams.append(Stream(connection, place))
        return self.streams[-1]

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/runs").json()
        return found

    def only_run(self) -> str:
        (run,) = self.runs()
        return str(run["id"])


def parse(text: bytes) -> Answer:
    head, _, body = text.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(_unchunked(body))
    return Answer(int(first.split(" ")[1]), headers, body)


def _unchunked(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        yield body[:length]
        body = body[length + 2 :]


@contextmanager
def served(*places: Path, **options: Any) -> Iterator[Site]:
    """A server of runs, as long as it is needed."""
    ready = Signal()
    address = listen("127.0.0.1", options.pop("port", 0))
    server = Server(list(places), address, **{"assets": ASSETS, "when_ready": ready.set} | options)
    thread = Thread(target=server.serve_until_stopped)
    thread.start()
    assert ready.wait(10)
    site = Site(address.port, thread, server)
    try:
        yield site
    finally:
        for stream in site.streams:
            stream.close()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
