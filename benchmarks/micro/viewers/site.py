"""Start `apt-model watch` as a process for the load tests, and talk to it with a minimal HTTP client.

Nothing leaves the loopback device.
"""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

HEAD = re.compile(
    rb'data: \{"schema":\d+,"kind":"(?P<kind>\w+)","run_id":"crowd","step":(?P<step>\d+),"wall_time":(?P<time>[\d.]+),'
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A running `apt-model watch`."""

    port: int
    process: psutil.Process

    @property
    def run(self) -> str:
        """The id of the only run that it shows."""
        return str(json.loads(self.get("/api/runs"))[0]["id"])

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
        yield Site(port=port, process=psutil.Process(process.pid))
    finally:
        process.kill()
        process.communicate()


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
