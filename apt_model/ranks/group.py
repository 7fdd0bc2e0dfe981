"""How the ranks of a run agree: an error of one is everyone's, one goes first, each hears what all say.

With one process nothing here costs anything. Knows nothing of training, tensors or what is agreed on.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

from apt_model.errors import AptModelError, Told, told_of
from apt_model.ranks.store import Place, Store, connect, meeting, place

LONGEST_NAP = 0.05  # seconds between two looks at the store


class Ranks:
    """The ranks of a run (torch.distributed's word): this process's number, their count, and how they agree.

    Every rank makes the same calls in the same order. A call waits for the others as long as they live.

    Args:
        where: this process's number and their count.

    Attributes:
        rank: 0 to `size` - 1.
        size: 1 without a launcher, and then every method does nothing.
    """

    def __init__(self, where: Place) -> None:
        self.rank, self.size = where
        self._where, self._turn, self._before = where, 0, list[str]()
        self._connected: Store | None = None
        self._told: BaseException | None = None  # the last error that all ranks know of

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0: the one that writes and shows."""
        return self.rank == 0

    @contextmanager
    def agreed(self, what: str) -> Iterator[None]:
        """Context manager that the ranks leave together: if one raises, all do, with its line and its exit code.

        Args:
            what: done inside, in a few words, the same on every rank.

        Raises:
            AptModelError: `rank 1: ...`, of the same class, if another rank's number is the lowest that raised.
            RankLostError: a rank ended, or came to a stop, before it was through.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            if error is not self._told:
                self._settle(what, error)
            raise
        self._settle(what, None)

    @contextmanager
    def first(self, what: str) -> Iterator[None]:
        """Context manager whose block rank 0 runs before the others, who then find in a cache what it made; `agreed`.

        Raises:
            AptModelError: as `agreed`; an error of rank 0 is everyone's, and nobody else begins.
        """
        if self.size == 1:
            yield
            return
        gate = self._key(f"{what}, by rank 0")
        if not self.is_first:
            self._raise_first(self._heard(gate), None)
        with self.agreed(what):
            try:
                yield
            except BaseException as error:
                if self.is_first:
                    self._told = error
                    self._store.set(gate, _line_of(0, error))
                raise
            if self.is_first:
                self._store.set(gate, "")

    def gather(self, value: Any, what: str) -> list[Any]:
        """Every rank's value, by rank; a value is anything that JSON holds.

        Raises:
            AptModelError: another rank left with an error, which is raised here too.
            RankLostError: a rank ended, or came to a stop, before it said its value.
        """
        if self.size == 1:
            return [value]
        key = self._key(what)
        keys = [f"{key}/{rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], json.dumps(value))
        self._arrive(key, leaves=keys)
        return [json.loads(one) for one in self._store.multi_get(keys)]

    def _settle(self, what: str, error: BaseException | None) -> None:
        """Tell of an error or of none, wait for all, and raise the first that was told of."""
        key = self._key(what)
        errors = f"{key}/errors"
        self._store.append(errors, "" if error is None else _line_of(self.rank, error) + "\n")
        self._arrive(key, leaves=[errors])
        self._raise_first(self._store.get(errors).decode(), error)

    def _raise_first(self, lines: str, own: BaseException | None) -> None:
        told = min((Told(*json.loads(line)) for line in lines.splitlines()), default=None)
        if told is None:
            return
        is_own = own is not None and (told.rank == self.rank or _line_of(told.rank, own) == json.dumps(told))
        self._told = own if is_own else told_of(told)
        assert self._told is not None  # noqa: S101 - the one or the other
        raise self._told from (None if is_own else own)

    def _arrive(self, key: str, *, leaves: list[str]) -> None:
        """Wait until every rank is here; the last one lets all go, and removes what the turn before has left."""
        if self._store.add(f"{key}/count", 1) == self.size:
            for one in self._before:
                self._store.delete_key(one)
            self._store.set(f"{key}/all", "")
        self._heard(f"{key}/all")
        self._before = [*leaves, f"{key}/count", f"{key}/all"]

    def _heard(self, key: str) -> str:
        """What a key says, as soon as it says something."""
        nap = 0.0005
        while not self._store.check([key]):  # torch's own `wait` warns at each timeout, and hears of nobody lost
            sleep(nap)
            nap = min(1.5 * nap, LONGEST_NAP)
        return str(self._store.get(key), "utf-8")

    def _key(self, what: str) -> str:
        self._turn += 1
        return f"{self._turn}: {what}"

    @property
    def _store(self) -> Store:
        if self._connected is None:
            self._connected = connect(meeting(self._where))
        return self._connected


def _line_of(rank: int, error: BaseException) -> str:
    """An error as a line of JSON: a `Told`."""
    if isinstance(error, AptModelError):
        return json.dumps(Told(rank, error.code, error.exit_code, str(error)))
    if isinstance(error, KeyboardInterrupt):
        return json.dumps(Told(rank, "INTERRUPTED", 130, "interrupted"))
    return json.dumps(Told(rank, "APT", 1, f"{type(error).__name__}: {error}".rstrip(": ")))


_known: tuple[int, Ranks] | None = None


def ranks() -> Ranks:
    """The ranks of this run, known once a launcher or a process group has named them; a child process is alone."""
    global _known
    where = place()
    if where.size == 1:
        return Ranks(where)
    if _known is None or _known[1].size != where.size:
        _known = (os.getpid(), Ranks(where))
    return _known[1] if _known[0] == os.getpid() else Ranks(Place(0, 1))
