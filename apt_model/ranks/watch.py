"""The watch of a rank: tells the others its signs of life, hears theirs, and ends the process if one is lost.

Two threads. The one that beats speaks to the store, which can take for ever where the host of the store was stopped;
the one that looks sees that, sees the launcher end, and has the last word. Knows nothing of training.
"""

import faulthandler
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from apt_model.errors import RankLostError, Told, told_of
from apt_model.ranks.judge import Lost, Seen, line_of, missing, stuck
from apt_model.ranks.place import Place
from apt_model.ranks.signs import OUT, Pulse, Sign, Who
from apt_model.ranks.store import RankStore, is_agents, start_seconds

PATIENCE = 15.0  # seconds without a sign until a rank is lost, unless a setting or the environment says otherwise
BEAT = 1.0  # seconds
GRACE = 3.0  # seconds from a finding until a process ends whose training thread has not ended by itself
AGAIN = "start the run again with --resume"
FIX = (
    "look at its output and at stacks-rank-*.txt in the run directory, then go on with --resume; "
    "a rank that was only slow needs a larger rank_patience"
)


class Ends(NamedTuple):
    """What an ending names: where stacks are written (None: standard error), and the last good checkpoint."""

    directory: Path | None = None
    last_good: Callable[[], str | None] = lambda: None


class RankWatch:
    """Watches over the ranks while the process is in a session.

    Args:
        where: this rank, and how many there are.
        open_store: makes a connection of the watch's own.
        pulse: where this rank is.
        patience: seconds without a sign until a rank is lost.
        session: number of the session; each has keys of its own.
        serves: whether this process serves the store.

    Attributes:
        patience: as above; may change.
        found: what ends the run: a lost rank, or a rank that left with an error; None so far.
        ends: what an ending names.
    """

    def __init__(
        self,
        where: Place,
        open_store: Callable[[], RankStore],
        *,
        pulse: Pulse,
        patience: float,
        session: int,
        serves: bool,
    ) -> None:
        self._rank, self._size = where
        self._open_store, self._pulse, self._serves = open_store, pulse, serves
        self.patience = patience
        self._prefix, self._beat, self._start = f"watch {session}", min(BEAT, patience / 5), start_seconds()
        self.found: Told | None = None
        self.ends = Ends()
        self._last: Told | None = None  # what this rank leaves with
        self._until = float("inf")  # how long a server waits for the others to have heard it
        self._over, self._is_broken = threading.Event(), False
        self._who: dict[int, Who] = {self._rank: Who.here()}
        self._seen: dict[int, tuple[Sign | None, float]] = {}
        self._used: dict[int, float] = {}
        self._exchanged = self._looked = time.monotonic()
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._beats, self._looks)]

    def start(self, store: RankStore) -> None:
        """Say who this rank is, by a connection that is there already; begin to beat and to look."""
        store.set(self._key("who", self._rank), json.dumps(self._who[self._rank]))
        for thread in self._threads:
            thread.start()

    def stop(self, error: Told | None) -> None:
        """The session is over here, with an error or without: the others are told, nothing ends this process any more.

        A process that serves the store stays until all have heard it.
        """
        self._pulse.move(OUT)
        self._last = error
        has_ended_well = error is None and self.found is None
        self._until = time.monotonic() + (self.patience if has_ended_well else 3 * self._beat)
        self._over.set()
        self._threads[0].join(self.patience)

    def await_finding(self, seconds: float) -> Told | None:
        """What is found within so many seconds."""
        end = time.monotonic() + seconds
        while self.found is None and time.monotonic() < end:
            time.sleep(0.05)
        return self.found

    def _beats(self) -> None:
        from torch.distributed import DistError

        try:
            store = self._open_store()
            while self.found is None and not self._over.is_set():
                self._exchange(store)
                self._over.wait(self._beat)
            if self._last is not None:
                store.compare_set(self._key("verdict"), "", json.dumps(self._last))
            store.set(self._key("sign", self._rank), json.dumps(self._pulse.read()))
            gone = store.add(self._key("gone"), 1)
            while self._serves and gone < self._size and time.monotonic() < self._until:
                time.sleep(0.02)
                gone = store.add(self._key("gone"), 0)
        except (DistError, RankLostError):
            self._is_broken = True

    def _exchange(self, store: RankStore) -> None:
        """Say the own sign, hear the others', judge; the first finding is everyone's."""
        now, verdict = time.monotonic(), self._key("verdict")
        store.set(self._key("sign", self._rank), json.dumps(self._pulse.read()))
        if not store.check([verdict]):
            self._hear(store, now)
            lost = self._lost(self._view(store, now))
            if lost is not None:
                line = f"{line_of(lost, self._who.get(lost.rank))}. Fix: {FIX}"
                told = Told(lost.rank, RankLostError.code, RankLostError.exit_code, line)
                store.compare_set(verdict, "", json.dumps(told))
        if store.check([verdict]):
            self._find(Told(*json.loads(store.get(verdict))))
        self._exchanged = time.monotonic()

    def _hear(self, store: RankStore, now: float) -> None:
        """Rank 0 hears all, the others rank 0, so that a thousand ranks are no burden; who is who is heard once."""
        if now - self._exchanged > self.patience / 2:  # this process itself was stopped: the others have had no chance
            self._seen = {rank: (sign, now) for rank, (sign, _) in self._seen.items()}
        others = [rank for rank in range(self._size) if rank != self._rank]
        for rank in others:
            if rank not in self._who and store.check([self._key("who", rank)]):
                self._who[rank] = Who(*json.loads(store.get(self._key("who", rank))))
        heard = others if self._rank == 0 else [0]
        ready = [
            rank for rank in heard if self._seen.get(rank, (None, 0.0))[0] or store.check([self._key("sign", rank)])
        ]
        said = dict(zip(ready, self._signs(store, ready), strict=True))
        for rank in heard:
            before, sign = self._seen.get(rank, (None, now)), said.get(rank)
            self._seen[rank] = before if sign is None or before[0] == sign else (sign, now)

    def _signs(self, store: RankStore, ranks: list[int]) -> list[Sign]:
        texts = store.multi_get([self._key("sign", rank) for rank in ranks]) if ranks else []
        return [Sign(*json.loads(text)) for text in texts]

    def _view(self, store: RankStore, now: float) -> dict[int, Seen]:
        """What is to be judged: what was heard, and what can be seen of the processes of this machine."""
        view = {rank: Seen(sign, now - since, has_come=rank in self._who) for rank, (sign, since) in self._seen.items()}
        own = self._who[self._rank]
        for rank, who in self._who.items():
            if rank == self._rank or who.machine != own.machine:
                continue
            if who.has_ended():  # what it said last: it may have left the run before
                has_said = store.check([self._key("sign", rank)])
                view[rank] = Seen(self._signs(store, [rank])[0] if has_said else None, 0.0, has_ended=True)
            elif rank in view and view[rank].silent > 2 * self._beat:
                used, before = who.cpu_seconds(), self._used.get(rank)
                self._used[rank] = used
                view[rank] = view[rank]._replace(computes=before is not None and used > before)
        return view

    def _lost(self, view: dict[int, Seen]) -> Lost | None:
        lost = missing(view, self.patience, self._pulse.step, self._start)
        signs = {rank: one.sign for rank, one in view.items() if one.sign is not None}
        if lost is not None or self._rank != 0 or len(signs) < self._size - 1:
            return lost
        return stuck({0: self._pulse.read(), **signs}, self.patience)

    def _looks(self) -> None:
        while not self._over.wait(self._beat / 2):
            now = time.monotonic()
            if now - self._looked > self.patience / 2:  # this process itself was stopped
                self._exchanged = now
            self._looked = now
            if self.found is None:
                how = self._cut_off(now)
                if how is not None:
                    self._find(Told(0, RankLostError.code, RankLostError.exit_code, f"{how}. Fix: {AGAIN}"))
            if self.found is not None:
                self._end(self.found)
                return

    def _find(self, told: Told) -> None:
        """What ends the run; of a lost rank the stacks are written before the training thread hears of it."""
        if self.found is None:
            if told.code == RankLostError.code:
                self._dump_stacks()
            self.found = told

    def _cut_off(self, now: float) -> str | None:
        """Why the others cannot be heard any more; None while they can."""
        if self._parent is not None and os.getppid() != self._parent:
            return f"the launcher (pid {self._parent}) has ended"
        silent = now - self._exchanged
        if not self._is_broken and silent < self.patience:
            return None
        how = "can no longer be reached" if self._is_broken else f"gives no sign for {silent:.0f} s"
        if is_agents():
            return f"the launcher, through which the ranks speak, {how}"
        return line_of(Lost(0, how), self._who.get(0))

    def _end(self, told: Told) -> None:
        """End the process, unless its training thread soon leaves the session by itself, with the same error."""
        if self._over.wait(GRACE):
            return
        error = told_of(told)
        error.last_good = self.ends.last_good()
        line = "".join(one if one.isprintable() else "?" for one in f"error[{error.code}]: {error}")
        os.write(2, f"{line}\n".encode(errors="replace"))
        os._exit(error.exit_code)

    def _dump_stacks(self) -> None:
        directory = self.ends.directory
        if directory is None or not directory.is_dir():
            faulthandler.dump_traceback(2)
            return
        with suppress(OSError), (directory / f"stacks-rank-{self._rank}.txt").open("w") as file:
            faulthandler.dump_traceback(file)

    def _key(self, kind: str, rank: int | None = None) -> str:
        return f"{self._prefix}/{kind}" if rank is None else f"{self._prefix}/{kind}/{rank}"
