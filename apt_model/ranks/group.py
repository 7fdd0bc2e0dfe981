"""How the ranks of a run agree: an error of one is everyone's, one goes first, each hears what all say.

With one process nothing here costs anything. Knows nothing of training, tensors or what is agreed on.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

from apt_model.errors import Interrupted, Told, told_of
from apt_model.ranks.broken import is_of_connection, own_group_ended, told_to_end, who_broke_it
from apt_model.ranks.place import Place, place, share_place
from apt_model.ranks.signs import Pulse
from apt_model.ranks.store import Meeting, RankStore, connect, meeting, names_of_pieces, seconds_of
from apt_model.ranks.told import line_of, told_by
from apt_model.ranks.watch import GRACE, PATIENCE, Ends, RankWatch

T = TypeVar("T")
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
        self._meeting: Meeting | None = None
        self._connected: RankStore | None = None
        self._watch: RankWatch | None = None
        self._pulse, self._session = Pulse(), 0
        self._told: BaseException | None = None  # the last error that all ranks know of

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0: the one that writes and shows."""
        return self.rank == 0

    @contextmanager
    def session(
        self,
        *,
        patience: float | None = None,
        directory: Path | None = None,
        last_good: Callable[[], str | None] | None = None,
    ) -> Iterator[None]:
        """Context manager around what the ranks do together: they watch over each other, and leave together.

        If a rank leaves with an error, all do, with its line and its exit code. If one is lost, its connections break,
        or the launcher ends, all others leave with a `RankLostError`; a process that sits in a collective ends there,
        with exit code 6, after its stacks were written. One session in another only changes what is given.

        Args:
            patience: seconds without a sign until a rank is lost; `apt_model.ranks.judge` has the rule. None: what
                APT_RANK_PATIENCE says, else PATIENCE.
            directory: the run directory, for the stacks.
            last_good: the path of the last good checkpoint.

        Raises:
            AptModelError, RankLostError: as told above.
        """
        if self.size == 1:
            yield
            return
        if self._watch is not None:
            with self._named(self._watch, patience, directory, last_good):
                yield
            return
        watch = self._began()
        left: BaseException | None = None
        with told_to_end(partial(self._asked_to_end, watch)), own_group_ended():
            try:
                with self._named(watch, patience, directory, last_good):
                    yield
            except BaseException as error:
                left = error if error is not self._told else None
                raise
            finally:
                self._watch = None
                watch.stop(None if left is None else told_by(self.rank, left))

    @contextmanager
    def _named(
        self,
        watch: RankWatch,
        patience: float | None,
        directory: Path | None,
        last_good: Callable[[], str | None] | None,
    ) -> Iterator[None]:
        """Context manager: the watch with what a session gives it; a broken connection becomes who broke it."""
        before = watch.ends, watch.patience
        watch.ends = Ends(directory or watch.ends.directory, last_good or watch.ends.last_good)
        watch.patience = patience or watch.patience
        try:
            yield
        except BaseException as error:
            explained = self._explained(error, watch)
            if explained is not error:
                raise explained from None
            raise
        finally:
            watch.ends, watch.patience = before

    def at(self, phase: str, step: int | None = None) -> None:
        """This rank has come to a phase (`signs.PHASES`, or OUTSIDE) of the same step or of another: it goes on."""
        self._pulse.move(phase, step)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Context manager around a collective of a process group: for the watch this rank waits, and is not stuck."""
        self._pulse.wait(what)
        try:
            yield
        finally:
            self._pulse.wait("")

    def _began(self) -> RankWatch:
        self._session, self._turn, self._before, self._pulse = self._session + 1, 0, [], Pulse()
        store = self._store  # rank 0 serves it from now on
        assert self._meeting is not None  # noqa: S101 - it was met there
        self._watch = RankWatch(
            self._where,
            partial(connect, self._meeting),
            pulse=self._pulse,
            patience=seconds_of(os.environ, "APT_RANK_PATIENCE", PATIENCE),
            session=self._session,
            serves=self._meeting.is_here,
        )
        self._watch.start(store)
        return self._watch

    def _explained(self, error: BaseException, watch: RankWatch) -> BaseException:
        """An error, or, where it is that of a broken connection, who broke it."""
        if error is self._told or not is_of_connection(error):
            return error
        self._told = who_broke_it(watch)
        return self._told

    def _asked_to_end(self, watch: RankWatch, number: int) -> None:
        """SIGTERM: a launcher ends all ranks when one has failed, whose line is then this one's too.

        Raises:
            AptModelError: always.
        """
        told = watch.await_finding(GRACE)
        if told is None:
            raise Interrupted("stopped by a signal", signal=number)
        self._told = told_of(told)
        raise self._told

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
                    self._store.set(gate, line_of(0, error))
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
        self._store.put_long(keys[self.rank], json.dumps(value))
        self._arrive(key, leaves=keys)
        texts = [self._store.get_long(one) for one in keys]
        self._before += [name for one, text in zip(keys, texts, strict=True) for name in names_of_pieces(one, text)]
        return [json.loads(text) for text in texts]

    def of_first(self, make: Callable[[], T], what: str) -> T:
        """What rank 0 makes, on every rank: anything that JSON holds.

        Raises:
            AptModelError: as `agreed`; an error of making it is everyone's.
        """
        with self.agreed(what):
            value = make() if self.is_first else None
        told: list[T] = self.gather(value, f"{what}, told by rank 0")
        return told[0]

    def _settle(self, what: str, error: BaseException | None) -> None:
        """Tell of an error or of none, wait for all, and raise the first that was told of."""
        key = self._key(what)
        errors = f"{key}/errors"
        self._store.append(errors, "" if error is None else line_of(self.rank, error) + "\n")
        self._arrive(key, leaves=[errors])
        self._raise_first(self._store.get(errors).decode(), error)

    def _raise_first(self, lines: str, own: BaseException | None) -> None:
        told = min((Told(*json.loads(line)) for line in lines.splitlines()), default=None)
        if told is None:
            return
        is_own = own is not None and (told.rank == self.rank or line_of(told.rank, own) == json.dumps(told))
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
        with self.waiting(key):
            while not self._store.check([key]):  # torch's own `wait` warns at each timeout, and hears of nobody lost
                if self._watch is not None and self._watch.found is not None:
                    self._told = told_of(self._watch.found)
                    raise self._told
                sleep(nap)
                nap = min(1.5 * nap, LONGEST_NAP)
        return str(self._store.get(key), "utf-8")

    def _key(self, what: str) -> str:
        self._turn += 1
        return f"{self._session}.{self._turn}: {what}"

    @property
    def _store(self) -> RankStore:
        if self._connected is None:
            share_place()
            self._meeting = meeting(self._where)
            self._connected = connect(self._meeting)
        return self._connected


_known: tuple[int, Ranks] | None = None


def ranks() -> Ranks:
    """The ranks of this run, known once a launcher or a process group has named them; a child process is alone."""
    global _known
    where = place()
    if where.size == 1:
        return Ranks(where)
    if "torch" not in sys.modules:  # else torch's store prints a page of frames when its server ends
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if _known is None or _known[1].size != where.size:
        _known = (os.getpid(), Ranks(where))
    return _known[1] if _known[0] == os.getpid() else Ranks(Place(0, 1))
