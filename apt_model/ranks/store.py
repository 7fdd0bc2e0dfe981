"""The key-value store through which the ranks of a run speak: a TCPStore of `torch.distributed`.

It needs no process group, so that ranks can agree before there is one. Knows nothing of what is said.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from apt_model.errors import ConfigError, RankLostError, reason_of
from apt_model.ranks.place import PORT, Place, has_group, integer_of

START = "APT_RANK_START"
START_SECONDS = 600.0  # for all ranks to start: images are pulled and nodes come up one after the other
PIECE = 2**20  # characters: torch's store refuses a value of more than 8 MiB
KNOCK = 0.1  # seconds between two tries to reach a server that is not there yet


class Meeting(NamedTuple):
    """Where the store is served, and whether this process serves it (else rank 0, or the launcher's agent)."""

    host: str
    port: int
    is_here: bool


def is_agents() -> bool:
    """Whether the launcher (torchrun, `accelerate launch`) serves the store itself."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def meeting(where: Place) -> Meeting:
    """Where the store is: at MASTER_ADDR, or at a port that rank 0 opens and tells the process group.

    Raises:
        ConfigError: several ranks, but neither MASTER_ADDR nor a process group.
    """
    if "MASTER_ADDR" in os.environ:
        port = integer_of("MASTER_PORT") if "MASTER_PORT" in os.environ else int(PORT)
        return Meeting(os.environ["MASTER_ADDR"], port, where.rank == 0 and not is_agents())
    if not has_group():
        what = f"this is process {where.rank} of {where.size}, but where they meet is not known"
        fix = "start it with torchrun or accelerate launch, or set MASTER_ADDR and MASTER_PORT"
        raise ConfigError(what, got="no MASTER_ADDR in the environment", fix=fix)
    import torch.distributed as dist

    told: list[tuple[str, int] | None] = [(_own_name(), free_port()) if where.rank == 0 else None]
    dist.broadcast_object_list(told, src=0)
    ((host, port),) = [one for one in told if one is not None]
    return Meeting(host, port, where.rank == 0)


class RankStore:
    """A connection to the store, for one thread alone: a call that waits keeps others out. Methods: torch's own.

    A second, silent connection shows when the server has ended, before torch's client meets that and prints a page.
    """

    def __init__(self, spoken: Any, silent: socket.socket) -> None:
        self._spoken, self._silent = spoken, silent
        self._silent.setblocking(False)

    def __getattr__(self, name: str) -> Any:
        """A method of torch's store.

        Raises:
            DistNetworkError: the server has ended.
        """
        from torch.distributed import DistNetworkError

        with suppress(BlockingIOError):
            with suppress(ConnectionError):
                self._silent.recv(1)
            raise DistNetworkError("the store's server has ended")
        return getattr(self._spoken, name)

    def put_long(self, key: str, text: str) -> None:
        """Set a key to a text of any length, in pieces under keys of their own."""
        names = names_of_pieces(key, text)
        for number, name in enumerate(names):
            self.set(name, text[number * PIECE : (number + 1) * PIECE])
        self.set(key, str(len(names)))

    def get_long(self, key: str) -> str:
        """The text that `put_long` has set a key to."""
        return "".join(str(self.get(f"{key}/{number}"), "utf-8") for number in range(int(self.get(key))))


def names_of_pieces(key: str, text: str) -> list[str]:
    """The keys of the pieces of a text that `put_long` sets a key to."""
    return [f"{key}/{number}" for number in range(-(-len(text) // PIECE))]


def connect(at: Meeting) -> RankStore:
    """A new connection to the store.

    Raises:
        RankLostError: nobody serves it in the time that ranks have to start, or its server ends meanwhile.
    """
    from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

    seconds = start_seconds()
    wait = timedelta(seconds=seconds)
    prefix = f"apt_model/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store = None
        if at.is_here:
            with suppress(DistError):  # a server of this process that is not to be shared has the port
                store = TCPStore(
                    at.host, at.port, is_master=True, timeout=wait, wait_for_workers=False, multi_tenant=True
                )
        silent = _reached(at, seconds)
        if store is None:
            store = TCPStore(at.host, at.port, timeout=wait, wait_for_workers=False)
    except (DistError, OSError) as error:
        what = f"rank 0 cannot be reached at {at.host}:{at.port}"
        fix = "check that it runs, and that MASTER_ADDR and MASTER_PORT are the same everywhere and not blocked"
        raise RankLostError(what, got=reason_of(error), fix=fix) from error
    return RankStore(PrefixStore(prefix, store), silent)


def _reached(at: Meeting, seconds: float) -> socket.socket:
    """A connection to the server, tried until it is there: torch's own tries would hear of no signal.

    Raises:
        OSError: it is not there in so many seconds.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((at.host, at.port), timeout=max(KNOCK, end - time.monotonic()))
        except OSError:  # also a name that is not known yet
            if time.monotonic() > end:
                raise
            time.sleep(KNOCK)


def start_seconds() -> float:
    """Seconds that a rank has to start, as the environment says."""
    return seconds_of(os.environ, START, START_SECONDS)


def seconds_of(environment: Mapping[str, str], name: str, usual: float) -> float:
    """A number of seconds in the environment.

    Raises:
        ConfigError: it is no positive number.
    """
    said = environment.get(name)
    try:
        seconds = usual if said is None else float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{name} in the environment", got=repr(said), expected="seconds, more than 0")
    return seconds


def _own_name() -> str:
    """A name of this machine that can be looked up."""
    with suppress(OSError):
        socket.getaddrinfo(socket.gethostname(), None)
        return socket.gethostname()
    return "127.0.0.1"


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])
