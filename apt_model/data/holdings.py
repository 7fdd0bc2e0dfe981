"""Find, read and set what a data loader holds: generators, numbers and orders, in its samplers, data sets and collator.

Knows where such values are held; knows nothing of checkpoints.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Generator = torch.Generator | random.Random | np.random.Generator | np.random.RandomState
Number = bool | int | float | str | None

DEPTH = 6  # of objects within objects that are searched
SHORT = 64  # entries of a list that is searched: of data sets, not of rows
LONGEST = 256  # characters of a text that counts as a number: a phase's name, not a row
LONGEST_ORDER = 1_000_000  # entries of a list of integers that may be an order of rows
GLOBAL: Mapping[str, Any] = {  # python's and numpy's own generators; torch's are known by device
    "python": random.random.__self__,  # type: ignore[attr-defined]
    "numpy": np.random.rand.__self__,  # type: ignore[attr-defined]
}


@dataclass(frozen=True)
class Holdings:
    """What was found in a loader.

    Attributes:
        values: generators, numbers and orders by attribute path ("sampler.generator"); a generator only once.
        holders: the objects that were searched, by the path before their attributes' names.
    """

    values: dict[str, Any] = field(default_factory=dict)
    holders: dict[str, Any] = field(default_factory=dict)

    def put(self, path: str, value: Any) -> None:
        """Set the value of a path, whose last name may be new; a list or array keeps its place in memory.

        Raises:
            LookupError: the object that held it is not there.
            AttributeError, TypeError: it cannot be set.
        """
        before = self.values.get(path)
        if isinstance(before, list):
            before[:] = value
        elif isinstance(before, np.ndarray | Tensor) and before.shape == value.shape:
            before[...] = value
        else:
            prefix, _, name = path.rpartition(".")
            _put(self.holders[prefix], name, value)


def walk(loader: Any) -> Holdings:
    """All that a loader, its samplers, its data sets or its collator hold, in closures and in objects they hold too.

    Not the global generators, modules, classes, models, or texts and lists as long as data.
    """
    found = Holdings()
    _search(loader, "", found, {id(one) for one in (*GLOBAL.values(), torch.default_generator)}, DEPTH)
    return found


def is_order(value: Any) -> bool:
    """Whether a value may be an order of rows: integers in a list, or in an array or tensor of at most one axis."""
    if isinstance(value, list):
        return 0 < len(value) <= LONGEST_ORDER and all(type(one) is int for one in value)
    if isinstance(value, np.ndarray):
        return value.ndim <= 1 and value.size <= LONGEST_ORDER and value.dtype.kind in "iu"
    return isinstance(value, Tensor) and value.ndim <= 1 and value.numel() <= LONGEST_ORDER and _is_integer(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number, a truth value, a short text or None."""
    return isinstance(value, Number) and (not isinstance(value, str) or len(value) <= LONGEST)


def closure_of(function: FunctionType) -> dict[str, Any]:
    """The names and values of a function's closure, without names that have no value yet."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def _is_integer(value: Tensor) -> bool:
    return value.device.type == "cpu" and not value.is_floating_point() and not value.is_complex()


def _search(holder: Any, prefix: str, found: Holdings, seen: set[int], depth: int) -> None:
    seen.add(id(holder))
    found.holders[prefix.removesuffix(".")] = holder
    for name, value in _parts(holder):
        path = f"{prefix}{name.replace('.', ':')}"
        if is_number(value):
            found.values[path] = value
        elif id(value) in seen:
            continue
        elif isinstance(value, Generator) or is_order(value):
            seen.add(id(value))
            found.values[path] = value
        elif depth and not isinstance(value, type | ModuleType | nn.Module | Tensor):
            _search(value, f"{path}.", found, seen, depth - 1)


def _parts(holder: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds: its attributes, a function's closure, the object of a method, the entries of a short list.

    Not the iterator of a data loader whose workers live on: their generators are in other processes. Nor the place that
    a stream of `datasets` keeps while it is read: reading makes it.
    """
    if isinstance(holder, FunctionType):
        yield from closure_of(holder).items()
    elif isinstance(holder, MethodType):
        yield "self", holder.__self__
    elif isinstance(holder, partial):
        yield from (("func", holder.func), ("args", holder.args), *holder.keywords.items())
    elif isinstance(holder, list | tuple) and len(holder) <= SHORT:
        yield from ((str(index), value) for index, value in enumerate(holder))
    elif isinstance(holder, dict) and len(holder) <= SHORT:
        yield from ((str(key), value) for key, value in holder.items())
    else:
        slots = getattr(type(holder), "__slots__", ())
        yield from ((name, getattr(holder, name)) for name in slots if hasattr(holder, name))
        held = getattr(holder, "__dict__", {}).items()
        yield from ((name, value) for name, value in held if name != "_iterator" and not name.endswith("_state_dict"))


def _put(holder: Any, name: str, value: Any) -> None:
    if isinstance(holder, FunctionType):
        cells = dict(zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=True))
        cells[name].cell_contents = value
    elif isinstance(holder, partial):
        holder.keywords[name] = value
    elif isinstance(holder, list):
        holder[int(name)] = value
    elif isinstance(holder, dict):
        key = next((key for key in holder if str(key).replace(".", ":") == name), name)
        holder[key] = value
    else:
        setattr(holder, name, value)
