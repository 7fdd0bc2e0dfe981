"""Save and restore what a run's data draws from and counts by, so that a resumed run draws the same batches.

Knows what changed since the run began; knows nothing of files.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apt_model.data.holdings import Generator, is_number, is_order, walk
from apt_model.data.rng import Tensors, below, joined, read_generators, set_generators, set_state, state_of

GENERATORS, ORDERS = "loader", "order"  # parts that tensors are joined from


class DataState:
    """The state that a run's batches follow from: all generators, and the loader's numbers and orders that changed.

    What a sampler, a data set or a collator keeps in a number (the count of its epochs), in a list of integers (an
    order that it shuffles on and on) or in a generator is its state. A value that has not changed since the run began
    is a setting: it is left as the caller made it.

    Args:
        loader: yields the batches.
        settings_too: all numbers and orders are its state, changed or not.
    """

    def __init__(self, loader: Iterable[Any], *, settings_too: bool = False) -> None:
        self.loader = loader
        self._settings = {} if settings_too else {path: _mark(value) for path, value in walk(loader).values.items()}

    def read(self, device: torch.device) -> tuple[dict[str, Any], Tensors]:
        """The state, with that of a device's global generators, as (JSON values, tensors by name)."""
        (everybodys, their_tensors), (own, own_tensors) = read_generators(device), self.read_own()
        return {**everybodys, **own}, {**their_tensors, **own_tensors}

    def read_own(self) -> tuple[dict[str, Any], Tensors]:
        """The state of what the loader holds, as (JSON values, tensors by name)."""
        plain: dict[str, Any] = {"owned": {}, "numbers": {}}
        generators, orders = Tensors(), Tensors()
        for path, value in walk(self.loader).values.items():
            if isinstance(value, torch.Generator):
                generators[path] = state_of(value)
            elif isinstance(value, Generator):
                plain["owned"][path] = state_of(value)
            elif self._settings.get(path, ...) == _mark(value):
                continue
            elif is_number(value):
                plain["numbers"][path] = value
            elif (numbers := _integers(value)) is not None:
                orders[path] = numbers
        return plain, joined({GENERATORS: generators, ORDERS: orders})

    def set(self, plain: dict[str, Any], tensors: Tensors, device: torch.device) -> None:
        """Set a state of `read`; raises as `set_own`."""
        set_generators(plain, tensors, device)
        self.set_own(plain, tensors)

    def set_own(self, plain: dict[str, Any], tensors: Tensors) -> None:
        """Set a state of `read_own`, also where a generator or a number is only made at its first use.

        Raises:
            LookupError: there is no state for one of the generators, or no place for one of the states.
            AttributeError, TypeError, ValueError, RuntimeError: one cannot be set.
        """
        found = walk(self.loader)
        states = {**plain["owned"], **below(GENERATORS, tensors)}
        held = {path: one for path, one in found.values.items() if isinstance(one, Generator)}
        for path in states.keys() - held.keys():
            held[path] = _made(states[path])
            found.put(path, held[path])
        for path, one in held.items():
            set_state(one, states[path])
        changed = {**plain["numbers"]}
        changed |= {path: _like(found.values.get(path), one) for path, one in below(ORDERS, tensors).items()}
        for path, value in changed.items():
            self._settings.pop(path, None)  # it is none, whatever value it has from now on
            if path not in found.values or _mark(found.values[path]) != _mark(value):
                found.put(path, value)


@contextmanager
def left_as_it_was(loader: Iterable[Any]) -> Iterator[None]:
    """Context manager: afterwards the state of what a data loader holds is as it was."""
    restore = restorer(loader)
    try:
        yield
    finally:
        restore()


def restorer(loader: Iterable[Any]) -> Callable[[], None]:
    """A function that sets what a data loader holds back to its present state."""
    state = DataState(loader, settings_too=True)
    return partial(state.set_own, *state.read_own())


def _mark(value: Any) -> Any:
    """Equal for equal values: of an order a hash, so that none is kept in memory twice."""
    if isinstance(value, Generator):
        return None
    numbers = _integers(value) if is_order(value) else None
    return (type(value), value) if numbers is None else blake2b(numbers.numpy().tobytes()).hexdigest()


def _integers(order: Any) -> Tensor | None:
    """An order as a tensor of int64, or None where one of its numbers has more bits."""
    try:
        return torch.as_tensor(np.asarray(order, dtype=np.int64)).clone()
    except OverflowError:
        return None


def _like(before: Any, order: Tensor) -> Any:
    """An order as its holder had it: as an array, a tensor or a list."""
    if isinstance(before, np.ndarray):
        return order.numpy().astype(before.dtype)
    return order.to(before.dtype) if isinstance(before, Tensor) else order.tolist()


def _made(state: Any) -> Generator:
    """A generator of the kind that a state is of."""
    if isinstance(state, Tensor):
        return torch.Generator()
    if isinstance(state, list):
        return random.Random()
    kind = getattr(np.random, state["bit_generator"])
    return np.random.RandomState(kind()) if "has_gauss" in state else np.random.Generator(kind())
