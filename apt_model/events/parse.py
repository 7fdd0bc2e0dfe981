"""How a line of a record becomes an event: strict JSON whose fields have the types of their dataclasses.

The one place where a line is judged: the page, reports, replays and `read_events` take what is an event here, and
nothing else. Knows nothing of files.
"""

import copy
import json
import math
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from apt_model.errors import DataError, brief
from apt_model.events.event import Event
from apt_model.events.records import KINDS, SCHEMA_VERSION
from apt_model.events.strict import restore

LONGEST_LINE = 2**22  # bytes: 64 times what a run file of ours writes
MOST = 2**53  # beyond it a browser's integers are no longer exact
DEEPEST = 32  # lists and mappings within each other; ours have six at most

Reader = Callable[[Any], Any]


def event_of(line: bytes) -> Event:
    """The event of one line, given without its end.

    Raises:
        DataError: it is not one; `got` says why.
    """
    return from_record(json_object(line))


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line: UTF-8 without a byte order mark, no NaN, no infinity and no number beyond a float.

    Raises:
        DataError: it is not one; `got` says why.
    """
    if len(line) > LONGEST_LINE:
        raise _no_event(f"more than {LONGEST_LINE:,} bytes")
    if line.startswith(BOM_UTF8):
        raise _no_event("a byte order mark at its beginning")
    try:
        record = _STRICT.decode(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise _no_event(f"{error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise _no_event("lists or objects nested too deep") from error
    except ValueError as error:
        raise _no_event(str(error)) from error
    if not isinstance(record, dict):
        raise _no_event(f"JSON that is no object: {brief(record)}")
    return record


def from_record(record: Mapping[str, Any]) -> Event:
    """The event that `to_record` made the record from.

    Raises:
        DataError: not a record of this schema, or a field is missing or of another type; `got` says which.
    """
    name = record.get("kind")
    kind: Any = KINDS.get(name) if isinstance(name, str) else None
    if kind is None or record.get("schema") != SCHEMA_VERSION:
        raise DataError(
            "not an event of this version",
            got=f"kind {brief(name)}, schema {brief(record.get('schema'))}",
            expected=f"schema {SCHEMA_VERSION}",
            fix="read it with the version of apt-model that wrote it",
        )
    try:
        if "nonfinite" in record:
            values = copy.deepcopy(dict(record))  # the caller's dict stays unchanged
            restore(values, values.pop("nonfinite"))
            record = values
        event = _reader(kind)({"wall_time": None, **record})  # the default is for events that happen now
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise _no_event(str(error)) from error
    assert isinstance(event, Event)  # noqa: S101 - KINDS holds events only
    return event


def _no_event(why: str) -> DataError:
    return DataError("not an event", got=why[:200])


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond the range of numbers")
    return number


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_STRICT = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number)


@cache
def _reader(kind: Any) -> Reader:
    """What makes the type out of the JSON values it was written as: dataclasses, tuples, mappings, optionals."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _record_reader(kind)
    origin, arms = get_origin(kind), get_args(kind)
    if origin is Literal:
        return lambda value: _member(arms, value)
    if origin is tuple:
        return _list_reader(arms[0]) if arms[-1] is Ellipsis else lambda value: _rows(arms, [value])[0]
    if origin in (Union, UnionType) and type(None) in arms:
        one = _reader(Union[tuple(arm for arm in arms if arm is not type(None))])  # noqa: UP007 - made at run time
        return lambda value: None if value is None else one(value)
    if origin is not None and issubclass(origin, Mapping):
        each = _reader(arms[1])
        return lambda value: {key: each(item) for key, item in _exactly(dict, value).items()}
    if kind is Any:
        return _shallow
    return _scalar_reader(kind)


def _scalar_reader(kind: Any) -> Reader:
    at_once, is_count = _TYPES[kind] - {int}, kind is int

    def read(value: Any) -> Any:
        if type(value) in at_once or (is_count and type(value) is int and 0 <= value <= MOST):
            return value  # most of a record
        return _scalars(kind, (value,))[0]

    return read


def _record_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {one.name: _reader(hints[one.name]) for one in fields(kind)}

    def read(value: Any) -> Any:
        given = {}
        for key, item in _exactly(dict, value).items():
            try:
                if key in readers:
                    given[key] = readers[key](item)
                else:
                    _shallow(item)
            except (TypeError, ValueError) as error:
                raise TypeError(f"{key[:40]}: {error}") from error
        return kind(**given)

    return read


def _list_reader(item: Any) -> Reader:
    if get_origin(item) is tuple and get_args(item)[-1] is not Ellipsis:
        return lambda value: _rows(get_args(item), value)
    if item in _TYPES:
        return lambda value: _scalars(item, _exactly(list, value))
    each = _reader(item)
    return lambda value: tuple([each(one) for one in _exactly(list, value)])


def _rows(arms: tuple[Any, ...], value: Any) -> tuple[tuple[Any, ...], ...]:
    """A list of rows, each with an entry for each of `arms`: read by column, as cards have hundreds of them."""
    if not _exactly(list, value):
        return ()
    if set(map(type, value)) != {list} or set(map(len, value)) != {len(arms)}:
        raise TypeError(f"{brief(value)} are no lists of {len(arms)}")
    columns = zip(arms, zip(*value, strict=True), strict=True)
    read = [_scalars(arm, column) if arm in _TYPES else map(_reader(arm), column) for arm, column in columns]
    return tuple(zip(*read, strict=True))


_TYPES: Mapping[Any, set[type]] = {  # of JSON: a whole number stands for a float, `true` for none
    str: {str},
    bool: {bool},
    int: {int},
    float: {int, float},
    str | int | float: {str, int, float, bool},  # what a notice mentions
}


def _scalars(kind: Any, values: Iterable[Any]) -> tuple[Any, ...]:
    """The values, if all are of the kind: integers are counts, from 0 to MOST."""
    read = tuple(values)
    found = set(map(type, read))
    if not found <= _TYPES[kind]:
        wrong = next(value for value in read if type(value) not in _TYPES[kind])
        raise TypeError(f"{brief(wrong)} is no {getattr(kind, '__name__', kind)}")
    if int in found:
        least = 0 if kind is int else -MOST
        wrong = next((one for one in read if type(one) is int and not least <= one <= MOST), None)
        if wrong is not None:
            raise ValueError(f"{brief(wrong)} is out of range")
    return read


def _member(allowed: tuple[Any, ...], value: Any) -> Any:
    if value not in allowed:
        raise TypeError(f"{brief(value)} is none of {allowed}")
    return value


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{brief(value)} is no {kind.__name__}")
    return value


def _shallow(value: Any, left: int = DEEPEST) -> Any:
    """A value of any form that nests no deeper than what reads it can follow."""
    if type(value) in (dict, list):
        if not left:
            raise ValueError(f"more than {DEEPEST} lists or objects within each other")
        for item in value.values() if type(value) is dict else value:
            _shallow(item, left - 1)
    return value
