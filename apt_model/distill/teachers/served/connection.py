"""Requests to a teacher's server: a bounded number in flight, repeated with growing pauses until an answer is whole.

Knows HTTP and JSON; knows nothing of tokens or of what is asked.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

from apt_model.distill.teachers.served.limits import KEY
from apt_model.errors import AptModelError, ConfigError, ModelError, brief

PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses of a server that may answer later
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
CONNECTING = 10.0  # seconds
LONGEST_REASON = 300  # characters of what a server says
_JITTER = random.Random()  # pauses of requests drift apart; of its own, so that no seed of anybody's moves on


@dataclass(frozen=True, kw_only=True)
class TeacherServer:
    """Where a teacher is served, and how patiently it is asked.

    Attributes:
        address: http(s)://host:port, with or without /v1 behind it.
        key: sent as "Authorization: Bearer"; None: nothing is.
        in_flight: requests under way at once, at most.
        patience: seconds in which a request must have been answered, with all its repetitions.
    """

    address: str
    key: str | None = field(default=None, repr=False)
    in_flight: int = 16
    patience: float = 600.0

    def __post_init__(self) -> None:
        url = httpx2.URL(self.address)
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            got = self.address if not url.userinfo else "one with a user's name or password"
            fix = f"give http://HOST:PORT; a key goes into the environment variable {KEY}"
            raise ConfigError("no address of a teacher's server", got=got, fix=fix)
        if self.in_flight < 1 or not 0 < self.patience < float("inf"):
            got = f"in_flight={self.in_flight}, patience={self.patience}"
            raise ConfigError("settings of a teacher's server are out of range", got=got, expected="1 or more; above 0")

    @property
    def base(self) -> str:
        """The address that paths of any API go behind."""
        return re.sub(r"/+(v1/*)?$", "", self.address)


class Calls:
    """Requests to a server from a thread that waits for none of them; made by `calling`."""

    def __init__(self, server: TeacherServer, portal: BlockingPortal, client: httpx2.AsyncClient) -> None:
        self._server, self._portal, self._client = server, portal, client

    def ask(self, path: str, body: Any = None, *, is_first: bool = False) -> Any:
        """The JSON value of an answer: to a GET without a body, else to a POST.

        Args:
            path: behind the server's address.
            body: JSON value.
            is_first: the server should be there: a refused connection is not tried again.

        Raises:
            ModelError: the server does not answer in time, or refuses. ConfigError: a key is missing or wrong, or more
                log-probabilities are asked for than it gives.
        """
        return self._portal.call(self._ask, path, body, is_first)

    def begin(self, path: str, body: Any, read: Callable[[Any], Any]) -> Future[Any]:
        """Send a request; the result is `read` of its answer's JSON value, or raises as `ask`."""

        async def run() -> Any:
            return read(await self._ask(path, body))

        return self._portal.start_task_soon(run)

    async def _ask(self, path: str, body: Any, is_first: bool = False) -> Any:
        started, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                with anyio.fail_after(self._server.patience):
                    return await self._once(path, body)
            except (_Passing, httpx2.TransportError, TimeoutError) as error:
                wait = max(pause * _JITTER.uniform(0.5, 1.0), getattr(error, "pause", 0.0))
                seconds = time.monotonic() - started
                if seconds + wait > self._server.patience or (is_first and isinstance(error, httpx2.ConnectError)):
                    raise self._lost(error, seconds) from error
            await anyio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _once(self, path: str, body: Any) -> Any:
        response = await self._client.request("GET" if body is None else "POST", path, json=body)
        if response.status_code in PASSING:
            raise _Passing(f"HTTP {response.status_code}: {_reason(response)}", _pause_of(response))
        if response.status_code != 200:
            raise self._refused(path, response)
        try:
            return json.loads(response.content)
        except ValueError as error:  # cut off, by a server or proxy that did not tell the length
            raise _Passing(f"no JSON: {brief(response.text)}") from error

    def _lost(self, error: Exception, seconds: float) -> ModelError:
        got = f"{str(error) or type(error).__name__}, in {seconds:.0f} s of trying"
        fix = "start the server, and give the same command again: what is cached stays"
        return ModelError(f"{self._server.base} does not answer", got=got, fix=fix)

    def _refused(self, path: str, response: httpx2.Response) -> AptModelError:
        got, address = f"HTTP {response.status_code}: {_reason(response)}", self._server.base
        if response.status_code in (401, 403):
            return ConfigError(f"{address} wants a key", got=got, fix=f"set the environment variable {KEY}")
        if response.status_code in (404, 405):
            return ModelError(f"{address} has no {path}", got=got, fix="check the address and --server")
        if "logprob" in got:
            fix = "give a smaller --k, or start the server with a higher limit (vLLM: --max-logprobs)"
            return ConfigError(f"{address} does not give so many log-probabilities", got=got, fix=fix)
        return ModelError(f"{address} refuses a request", got=got)


class _Passing(Exception):  # noqa: N818 - no error unless it lasts
    """The server may answer later; `pause`: seconds that it asks to wait."""

    def __init__(self, what: str, pause: float = 0.0) -> None:
        super().__init__(what)
        self.pause = pause


@contextmanager
def calling(server: TeacherServer) -> Iterator[Calls]:
    """Context manager: a thread that makes requests; those still under way are dropped where an exception leaves it."""
    headers = {} if server.key is None else {"Authorization": f"Bearer {server.key}"}
    client = httpx2.AsyncClient(
        base_url=server.base,
        verify=server.address.startswith("https"),  # certificates take a while to load
        headers=headers,
        timeout=httpx2.Timeout(server.patience, connect=min(CONNECTING, server.patience), pool=None),
        limits=httpx2.Limits(max_connections=server.in_flight),
    )
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):
        yield Calls(server, portal, client)


def _reason(response: httpx2.Response) -> str:
    """The server's own words, on one line."""
    try:
        said = json.loads(response.content)
    except ValueError:
        said = response.text
    for name in ("error", "message"):
        said = said.get(name, said) if isinstance(said, dict) else said
    return " ".join(str(said).split())[:LONGEST_REASON]


def _pause_of(response: httpx2.Response) -> float:
    """Seconds from `Retry-After`: a number, or a date."""
    told = response.headers.get("Retry-After", "")
    try:
        return float(told) if told.strip().isdigit() else _until(parsedate_to_datetime(told))
    except (ValueError, TypeError):  # none, or a date without a zone
        return 0.0


def _until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()
