"""Slow, silent and many clients: each is let go in its time, and the others do not notice."""

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from apt_model.dashboard import connection, server
from apt_model.events.runfile import EVENTS, RunFile
from tests.dashboard.kit import Site, card, lines_of, served, step, verdict, write

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
SECONDS = 0.5


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", SECONDS)
    monkeypatch.setattr(connection, "STALLED_SECONDS", SECONDS)


def stalled(site: Site, path: str) -> socket.socket:
    """A client that asks, and then reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(10)
    client.connect(("127.0.0.1", site.port))
    client.sendall(site.request(path))
    return client


def is_dropped(client: socket.socket) -> bool:
    """Whether the server has ended the connection, whatever of the answer is still on its way."""
    try:
        while client.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def wait_for(site: Site, connections: int) -> float:
    """Seconds until the server holds so few connections."""
    begun = time.monotonic()
    while len(site.server.server_state.connections) > connections:
        assert time.monotonic() - begun < 10
        time.sleep(0.02)
    return time.monotonic() - begun


def test_viewers_that_take_nothing_are_dropped_while_the_others_hear_everything(tmp_path: Path) -> None:
    write(tmp_path / "run", card(0))
    with served(tmp_path / "run") as site, ExitStack() as clients:
        run = site.only_run()
        lazy = [clients.enter_context(stalled(site, f"/api/runs/{run}/events")) for _ in range(5)]
        eager = [site.stream(run) for _ in range(5)]
        readers = [Thread(target=stream.listen, kwargs={"until": "end"}) for stream in eager]
        for reader in readers:
            reader.start()
        file = RunFile(tmp_path / "run", resumes=True)
        for number in range(1, 600):
            file.emit(card(number, text="字" * 900))
        assert wait_for(site, len(eager)) < 5
        file.emit(verdict(600))
        file.close()
        for reader in readers:
            reader.join(20)
        record = lines_of(tmp_path / "run" / EVENTS)
        assert [stream.heard == record for stream in eager] == [True] * 5
        assert all(is_dropped(client) for client in lazy)


def test_a_client_that_does_not_take_a_long_answer_is_dropped(tmp_path: Path) -> None:
    write(tmp_path / "run", *(card(number, number / 300, "字" * 900) for number in range(300)))
    with served(tmp_path / "run") as site:
        run = site.only_run()
        with stalled(site, f"/api/runs/{run}/history"):
            time.sleep(SECONDS / 2)
            assert len(site.server.server_state.connections) == 1
            wait_for(site, 0)
        assert len(site.get(f"/api/runs/{run}/history").json()["events"]) == 300


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_a_request_that_does_not_come_to_an_end_is_given_up(tmp_path: Path, begun: bytes) -> None:
    with served(tmp_path / "run") as site, site.open(begun) as client:
        client.settimeout(0.05)
        heard, end = b"", time.monotonic() + 10 * SECONDS
        while b"408" not in heard and time.monotonic() < end:
            try:
                client.sendall(b"a" if begun.endswith(b" ") else b"")  # one letter now and then does not help
                heard += client.recv(100)
            except TimeoutError:
                continue
        assert heard.startswith(b"HTTP/1.1 408 ")
        wait_for(site, 0)


def test_a_body_that_never_comes_holds_nothing_up(tmp_path: Path) -> None:
    with served(tmp_path / "run") as site:
        request = site.request("/api/runs", Content_Length="1000000000")
        with site.open(request) as client:
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            wait_for(site, 0)


def test_a_flood_is_told_to_come_back_and_the_server_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "AT_ONCE", 20)
    monkeypatch.setattr(connection, "MOST", 40)
    write(tmp_path / "run", step(1))
    with served(tmp_path / "run") as site:
        run = site.only_run()
        with ExitStack() as clients:
            for _ in range(19):
                clients.callback(site.stream(run).close)
            assert site.get("/api/runs").status == 503
            for _ in range(60):
                clients.enter_context(site.open(b""))
            time.sleep(0.1)
            assert len(site.server.server_state.connections) <= 40
        for _ in range(2):  # a viewer that is gone is noticed at the next word
            write(tmp_path / "run", step(2))
            time.sleep(0.2)
        assert site.get("/api/runs").status == 200
