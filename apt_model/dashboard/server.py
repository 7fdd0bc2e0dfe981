"""The server for run files on a port of this machine. Knows nothing of what the page shows."""

import asyncio
import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvicorn

from apt_model.dashboard.app import Page
from apt_model.dashboard.assets import Asset, read_assets
from apt_model.dashboard.catalog import Catalog
from apt_model.dashboard.connection import Connection, Patience
from apt_model.dashboard.security import Doorman
from apt_model.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
TRIES = 50
AT_ONCE = 400  # connections; further ones are answered with 503
LEFT_SECONDS = 60.0
_TAKEN = (errno.EADDRINUSE, errno.EACCES)
SENT_AHEAD = 64 * 1024  # bytes of the kernel's send buffer: a larger one would hide that a client has stalled


@dataclass(frozen=True, kw_only=True)
class Address:
    """A listening address.

    Attributes:
        host: a host name or IP address of this machine.
        listener: the bound socket.
    """

    host: str
    listener: socket.socket

    @property
    def port(self) -> int:
        """The port that was bound."""
        port: int = self.listener.getsockname()[1]
        return port

    def url(self, token: str | None = None) -> str:
        """The URL to open in a browser."""
        host = _reachable(self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/" + (f"?token={token}" if token else "")

    def names(self) -> frozenset[str]:
        """Every valid Host header of this server, port included."""
        hosts = {self.host.lower()}
        if self.host in (*LOOPBACK, *EVERYWHERE):
            hosts |= set(LOOPBACK)
        if self.host in EVERYWHERE:
            hosts |= {socket.gethostname().lower(), *_own_addresses(socket.AF_INET), *_own_addresses(socket.AF_INET6)}
        return frozenset(f"{f'[{host}]' if ':' in host else host}:{self.port}" for host in hosts)


def listen(host: str, port: int) -> Address:
    """Bind the port, or the next free one.

    Raises:
        ConfigError: the host is not this machine, or no port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(port, min(port + TRIES, 65_536)):
        try:
            listener = socket.create_server((host, attempt), family=family, backlog=512)
        except OSError as error:
            reason = error.strerror
            if isinstance(error, socket.gaierror) or error.errno not in _TAKEN:
                fix = "use 127.0.0.1, or an address of this machine"
                raise ConfigError(f"cannot listen on {host}:{attempt}", got=reason, fix=fix) from error
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD)
            return Address(host=host, listener=listener)
    raise ConfigError(f"none of the ports {port} to {attempt} is free", got=reason, fix="give another --port")


class Server(uvicorn.Server):
    """uvicorn that ends its streams when it stops, and stops by itself when nobody is left.

    Args:
        runs: run directories, or folders of them.
        address: where to listen.
        assets: the page's files; ours if None.
        token: required from browsers; None: none is.
        asks: viewers may ask questions of runs that take any; else the server only reads.
        is_alone: whether the process that started us has ended; then the server stops after a minute without viewers.
        when_ready: called once the server answers requests.
    """

    def __init__(
        self,
        runs: Sequence[Path],
        address: Address,
        *,
        assets: Mapping[str, Asset] | None = None,
        token: str | None = None,
        asks: bool = False,
        is_alone: Callable[[], bool] = lambda: False,
        when_ready: Callable[[], object] = lambda: None,
    ) -> None:
        self._page = Page(Catalog(runs), read_assets() if assets is None else assets, asks=asks)
        self._is_alone, self._when_ready = is_alone, when_ready
        self._listener = address.listener
        app = Patience(Doorman(self._page.app(), hosts=address.names(), token=token, takes_posts=asks))
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="critical",
                access_log=False,  # the token must not get into a log
                proxy_headers=False,
                server_header=False,
                date_header=False,
                limit_concurrency=AT_ONCE,
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=16 * 1024,
            )
        )

    def serve_until_stopped(self) -> None:
        """Serve until Ctrl-C, SIGTERM, or until nobody is left."""
        with suppress(KeyboardInterrupt):
            self.run(sockets=[self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then call `when_ready`."""
        await super().startup(sockets)
        await asyncio.to_thread(self._when_ready)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether to stop."""
        is_left = counter % 10 == 0 and self._page.is_idle(LEFT_SECONDS) and self._is_alone()
        return await super().on_tick(counter) or is_left

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the viewers' streams, then shut down."""
        self._page.close()
        await super().shutdown(sockets)


def _reachable(host: str) -> str:
    """An address that other machines can reach, for a wildcard address."""
    if host not in EVERYWHERE:
        return host
    family, own = (socket.AF_INET, "127.0.0.1") if host == EVERYWHERE[0] else (socket.AF_INET6, "::1")
    return next((address for address in _own_addresses(family) if address != own), own)


def _own_addresses(family: socket.AddressFamily) -> list[str]:
    found = (address for addresses in psutil.net_if_addrs().values() for address in addresses)
    return [address.address.partition("%")[0] for address in found if address.family == family]
