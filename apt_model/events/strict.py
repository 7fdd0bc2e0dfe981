"""Conversion to strict JSON values: no dataclasses, no NaN or infinity, no more bytes than a limit.

Knows nothing of the kinds of records.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

ELLIPSIS = "…"
LONGEST_TEXT, SHORTEST_TEXT = 2**16, 2**4
MOST_ENTRIES = 1_000, 200, 40  # of a list or mapping, where cutting texts was not enough: no record of ours

Place = tuple[Any, Any] | tuple[()]  # (place of the container, key in it)


def plain(value: Any, nonfinite: dict[str, str], place: Place = ()) -> Any:
    """`value` as dicts, lists, strings and finite numbers.

    NaN and infinity become None; `nonfinite` then maps their place, such as `loss` or `detail.kl_nats.3`, to what they
    were. In a place, a dot of a mapping's key is written `~1`, a tilde `~0`.
    """
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is float:
        if math.isfinite(value):
            return value
        nonfinite[".".join(_path(place))] = str(value)
        return None
    if kind is tuple or kind is list:
        return [
            item if type(item) is str else plain(item, nonfinite, (place, index)) for index, item in enumerate(value)
        ]
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name), nonfinite, (place, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item, nonfinite, (place, key)) for key, item in value.items()}
    return value


def restore(record: dict[str, Any], nonfinite: Mapping[str, str]) -> None:
    """Put the NaN and infinity that `plain` took out back into `record`.

    Raises:
        LookupError, TypeError, ValueError: there is no such place, or it holds another value.
    """
    for path, number in nonfinite.items():
        holder: Any = record
        *way, last = path.split(".")
        for key in way:
            holder = holder[_key(holder, key)]
        last = _key(holder, last)
        if number not in ("nan", "inf", "-inf"):
            raise ValueError(f"{path} is {number!r}, which is finite")
        if holder[last] is not None:
            raise ValueError(f"{path} is both {holder[last]!r} and {number}")
        holder[last] = float(number)


def _key(holder: Any, key: str) -> Any:
    return int(key) if isinstance(holder, list) else key.replace("~1", ".").replace("~0", "~")


def _path(place: Place) -> Iterator[str]:
    if place:
        before, key = place
        yield from _path(before)
        yield str(key).replace("~", "~0").replace(".", "~1")


def shortened(record: Mapping[str, Any], *, fits: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """The record cut until it fits: first a card's last tokens are dropped, then texts are shortened.

    A record that another program wrote loses the ends of its lists too, at the worst all but its numbers. `truncated`
    in the result maps each place that was cut, as in `nonfinite`, to its number of tokens, characters or entries
    before.
    """
    cut: dict[str, int] = {}
    short = {**record, "truncated": cut}
    if _has_tokens(short):
        cut["detail"] = tokens = len(short["detail"]["kl_nats"])
        too_many = bisect_left(range(tokens), True, key=lambda index: not fits(_with_tokens_up_to(index + 1, short)))
        short = _with_tokens_up_to(too_many, short)
    most = LONGEST_TEXT
    least: dict[str, int] = {}
    if not fits(_with_texts_up_to(SHORTEST_TEXT, short, least, ())):  # its lists alone are too long: walked only once
        most = 2 * SHORTEST_TEXT
    while not fits(short) and most > SHORTEST_TEXT:
        most //= 2
        short = {**_with_texts_up_to(most, short, cut, ()), "truncated": cut}
    for most in MOST_ENTRIES:
        if fits(short):
            return short
        short = {key: _with_entries_up_to(most, value, cut, ((), key)) for key, value in short.items()}
        short["truncated"] = cut
    return short if fits(short) else {**_scalars(short), "truncated": {}}


def _has_tokens(record: Mapping[str, Any]) -> bool:
    """Whether a record has a card's columns of tokens, as ours do; another program's may be of any form."""
    detail = record.get("detail")
    return isinstance(detail, Mapping) and "kl_nats" in detail and all(isinstance(c, list) for c in detail.values())


def _scalars(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record is short whatever it is: its numbers, and which event of which run it is."""
    named = {key: record[key] for key in ("kind", "run_id") if isinstance(record.get(key), str)}
    numbers = {key: value for key, value in record.items() if isinstance(value, int | float) and len(key) < 100}
    return named | dict(list(numbers.items())[: MOST_ENTRIES[-1]])


def _with_tokens_up_to(count: int, card: Mapping[str, Any]) -> dict[str, Any]:
    nonfinite = {
        place: number
        for place, number in card.get("nonfinite", {}).items()
        if not place.startswith("detail.") or int(place.split(".")[2]) < count
    }
    short = {**card, "detail": {name: column[:count] for name, column in card["detail"].items()}}
    return {**short, "nonfinite": nonfinite} if nonfinite else {k: v for k, v in short.items() if k != "nonfinite"}


def _with_texts_up_to(most: int, value: Any, cut: dict[str, int], place: Place) -> Any:
    if isinstance(value, str) and len(value) > most:
        cut.setdefault(".".join(_path(place)), len(value))
        return value[: most - 1] + ELLIPSIS
    if isinstance(value, Mapping):
        return {key: _with_texts_up_to(most, item, cut, (place, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_texts_up_to(most, item, cut, (place, index)) for index, item in enumerate(value)]
    return value


def _with_entries_up_to(most: int, value: Any, cut: dict[str, int], place: Place) -> Any:
    if not isinstance(value, Mapping | list):
        return value
    if len(value) > most:
        cut.setdefault(".".join(_path(place)), len(value))
    if isinstance(value, list):
        return [_with_entries_up_to(most, item, cut, (place, at)) for at, item in enumerate(value[:most])]
    some = list(value.items())[:most]
    return {key: _with_entries_up_to(most, item, cut, (place, key)) for key, item in some}
