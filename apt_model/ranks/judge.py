"""Decide from the ranks' signs which one is lost, and tell a slow rank from one that is stuck.

The rule, with P for the patience in seconds:

- A process that has ended, seen on its own machine: lost at once.
- One that has never said who it is: lost after the seconds that a rank has to start.
- No beat for P: lost (killed, stopped, off the network). Where its machine says that it computes, 40 P: a beat needs
  Python's lock, which a long call of a C library may hold.
- Its beat goes on, but nobody has moved for P, and it is the one that is behind all others: stuck if neither it nor its
  workers have computed for that long; at the start, where files are fetched, for 10 P. One that computes is slow, not
  stuck, for 40 P in a step (with P = 15 NCCL's own ten minutes) and without end in a save, validation or exam.
- One that waits for somebody who is no rank (a user, a server): never stuck.
- All at the same place, nobody computes: 1.2 P within a step, else 10 P, as they may wait for the same storage.
- All wait for each other in different places: 1.2 P.

Pure: knows no clock, store or process.
"""

from collections.abc import Mapping
from typing import NamedTuple

from apt_model.ranks.signs import OUT, OUTSIDE, Sign, Who

COMPUTES, FETCHES, TIED = 40.0, 10.0, 1.2
START = "start-up"
IN_STEP = ("teacher", "forward", "backward", "optimizer")


class Seen(NamedTuple):
    """What is seen of a rank.

    Attributes:
        sign: its last; None if it has given none.
        silent: seconds since that was seen first, or since one began to look.
        has_ended: whether its process is no more; asked on its own machine alone.
        computes: whether its machine says that it has computed lately, though it was silent.
        has_come: whether it has said who it is.
    """

    sign: Sign | None
    silent: float
    has_ended: bool = False
    computes: bool = False
    has_come: bool = True


class Lost(NamedTuple):
    """The rank that is lost, and in what way."""

    rank: int
    how: str


def missing(seen: Mapping[int, Seen], patience: float, step: int, start: float) -> Lost | None:
    """A rank that has ended, or gives no sign; None if there is none.

    Args:
        seen: the other ranks.
        patience: P, in seconds.
        step: where the others are.
        start: seconds that a rank has to start.
    """
    for rank, one in seen.items():
        if one.sign is not None and one.sign.phase == OUT:
            continue
        limit = patience * (COMPUTES if one.computes else 1) if one.has_come else start
        if one.has_ended:
            return Lost(rank, f"{_target(one.sign, step)}: its process has ended")
        if one.silent >= limit:
            return Lost(rank, f"{_target(one.sign, step)}: no sign for {one.silent:.0f} s")
    return None


def stuck(signs: Mapping[int, Sign], patience: float) -> Lost | None:
    """A rank that gives signs, but does not go on; None if there is none. Needs the signs of all."""
    if min(sign.still for sign in signs.values()) < patience:
        return None
    at_work = {rank: sign for rank, sign in signs.items() if not sign.waits_for and sign.phase != OUT}
    if not at_work:
        return _waiting(signs, patience)
    place = min(sign.place for sign in at_work.values())
    behind = {rank: sign for rank, sign in at_work.items() if sign.place == place}
    phase, are_tied = next(iter(behind.values())).phase, len(behind) == len(signs)
    if phase == OUTSIDE:
        return None
    computes = any(sign.idle < patience for sign in behind.values())
    if computes and (are_tied or phase not in (*IN_STEP, "data")):
        return None
    tied = TIED if phase in IN_STEP else FETCHES
    limit = COMPUTES if computes else tied if are_tied else FETCHES if phase == START else 1.0
    rank, last = max(behind.items(), key=lambda item: (item[1].idle, -item[0]))
    waited = last.still if computes else last.idle
    if waited < limit * patience:
        return None
    others = "as are all ranks" if are_tied else "and the others wait"
    return Lost(
        rank, f"{_target(last)}: {'computing' if computes else 'stuck'} in {phase} for {waited:.0f} s, {others}"
    )


def _waiting(signs: Mapping[int, Sign], patience: float) -> Lost | None:
    """All who are still in the run wait for each other."""
    gone = [rank for rank, sign in signs.items() if sign.phase == OUT]
    waits = {rank: sign for rank, sign in signs.items() if sign.phase != OUT}
    if not waits or min(sign.still for sign in waits.values()) < TIED * patience:
        return None
    if gone:
        return Lost(gone[0], f"left the run, and the others wait for it in: {next(iter(waits.values())).waits_for}")
    first = min(waits, key=lambda rank: waits[rank].waits_for)
    places = ", ".join(sorted({sign.waits_for for sign in waits.values()}))
    return Lost(first, f"waits for the others, and they for it: {places}")


def _target(sign: Sign | None, step: int = 1) -> str:
    return "did not start" if sign is None else f"did not come to step {max(sign.step, step, 1)}"


def line_of(lost: Lost, who: Who | None) -> str:
    """The line that names a lost rank."""
    named = f"rank {lost.rank} ({who.host}, pid {who.pid})" if who is not None else f"rank {lost.rank}"
    return f"{named} {lost.how}"
