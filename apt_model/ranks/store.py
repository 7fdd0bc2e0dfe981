"""The key-value store through which the ranks of a run speak: a TCPStore of `torch.distributed`.

It needs no process group, so that ranks can agree before there is one. Knows nothing of what is said.
"""

import os
import socket
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from apt_model.errors import ConfigError, RankLostError, reason_of

START_SECONDS = 600.0  # for all ranks to start: images are pulled and nodes come up one after the other


class Place(NamedTuple):
    """The number of a rank, and of how many."""

    rank: int
    size: int


class Meeting(NamedTuple):
    """Where the store is served, and whether this process serves it (else rank 0, or the launcher's agent)."""

    host: str
    port: int
    is_here: bool


def place() -> Place:
    """This process's rank and the number of ranks: as a launcher says, or a process group; alone without either."""
    for number, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if number in os.environ and count in os.environ and (number == "RANK" or "MASTER_ADDR" in os.environ):
            return Place(_integer(number), _integer(count))
    if has_group():
        import torch.distributed as dist

        return Place(dist.get_rank(), dist.get_world_size())
    return Place(0, 1)


def is_agents() -> bool:
    """Whether the launcher (torchrun, `accelerate launch`) serves the store itself."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def meeting(where: Place) -> Meeting:
    """Where the store is: at MASTER_ADDR, or at a port that rank 0 opens and tells the process group.

    Raises:
        ConfigError: several ranks, but neither MASTER_ADDR nor a process group.
    """
    if "MASTER_ADDR" in os.environ:
        port = _integer("MASTER_PORT") if "MASTER_PORT" in os.environ else 29500
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

    def __init__(self, spoken: Any, at: Meeting) -> None:
        self._spoken, self._silent = spoken, socket.create_connection((at.host, at.port))
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


def connect(at: Meeting) -> RankStore:
    """A new connection to the store.

    Raises:
        RankLostError: nobody serves it in START_SECONDS.
    """
    from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

    wait = timedelta(seconds=START_SECONDS)
    prefix = f"apt_model/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store = None
        if at.is_here:
            with suppress(DistError):  # a server of this process that is not to be shared has the port
                store = TCPStore(
                    at.host, at.port, is_master=True, timeout=wait, wait_for_workers=False, multi_tenant=True
                )
        if store is None:
            store = TCPStore(at.host, at.port, timeout=wait, wait_for_workers=False)
    except DistError as error:
        what = f"rank 0 cannot be reached at {at.host}:{at.port}"
        fix = "check that it runs, and that MASTER_ADDR and MASTER_PORT are the same everywhere and not blocked"
        raise RankLostError(what, got=reason_of(error), fix=fix) from error
    return RankStore(PrefixStore(prefix, store), at)


def _integer(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError as error:
        raise ConfigError(f"{name} in the environment", got=repr(os.environ[name]), expected="an integer") from error


def has_group() -> bool:
    """Whether there is a process group; without torch there is none."""
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and bool(dist.is_initialized())


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
