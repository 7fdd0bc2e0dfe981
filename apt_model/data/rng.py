"""Save and restore the states of random generators: python's, numpy's, torch's, and those that a data loader owns.

Knows nothing of what draws from them, nor of how the states are kept.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Generator = torch.Generator | random.Random | np.random.Generator | np.random.RandomState
GLOBAL: Mapping[str, Any] = {  # python's and numpy's own; torch's are read by device
    "python": random.random.__self__,  # type: ignore[attr-defined]
    "numpy": np.random.rand.__self__,  # type: ignore[attr-defined]
}

DEPTH = 6  # of objects within objects that are searched for generators
SHORT = 64  # entries of a list that is searched: of data sets, not of rows


def read_generators(device: torch.device, loader: Iterable[Any]) -> tuple[dict[str, Any], Tensors]:
    """The states of all generators, as (JSON values, tensors by name)."""
    plain: dict[str, Any] = {name: _state_of(one) for name, one in GLOBAL.items()}
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    owned = {name: _state_of(one) for name, one in _owned(loader).items()}
    tensors |= {f"loader.{name}": state for name, state in owned.items() if isinstance(state, Tensor)}
    plain["owned"] = {name: state for name, state in owned.items() if not isinstance(state, Tensor)}
    return plain, tensors


def set_generators(plain: dict[str, Any], tensors: Tensors, device: torch.device, loader: Iterable[Any]) -> None:
    """Restore the states that `read_generators` returned.

    Raises:
        KeyError: there is no state for one of the generators.
    """
    for name, one in GLOBAL.items():
        _set_state(one, plain[name])
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)
    for name, generator in _owned(loader).items():
        is_torchs = isinstance(generator, torch.Generator)
        _set_state(generator, tensors[f"loader.{name}"] if is_torchs else plain["owned"][name])


def drawn_apart(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, drawn with global generators of their own from the second on: training does not move theirs.

    So an epoch that is drawn again, without the training between, has the same batches: of a sampler or transform that
    draws from the global generators too. The first is drawn from those of the training: a loader seeds itself there.
    """
    iterator, end, is_first = iter(batches), object(), True
    own = _global_states()
    while True:
        training = _global_states()
        if not is_first:
            _set_global_states(own)
        value = next(iterator, end)
        own = _global_states()
        if not is_first:
            _set_global_states(training)
        if value is end:
            return
        is_first = False
        yield value


def _global_states() -> tuple[Any, Any, Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_global_states(states: tuple[Any, Any, Tensor]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def generator_names(loader: Iterable[Any]) -> list[str]:
    """Attribute paths of the generators that a data loader owns: "sampler.generator", "dataset.rng"."""
    return list(_owned(loader))


def start_workers(loader: Any) -> None:
    """Start the workers of a DataLoader that live on between epochs, as they live where an epoch is over.

    Starting them draws from the loader's generator: before the states of a later epoch are set, not after.
    """
    if getattr(loader, "persistent_workers", False):
        iter(loader)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Context manager, without gradient: afterwards python's, numpy's and torch's generators are as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def generators_kept(loader: Iterable[Any]) -> Iterator[None]:
    """Context manager: afterwards the generators that a data loader owns are as they were."""
    restore = restorer(loader)
    try:
        yield
    finally:
        restore()


def restorer(loader: Iterable[Any]) -> Callable[[], None]:
    """A function that sets the generators that a data loader owns to their present states."""
    undo = [partial(_set_state, one, _state_of(one)) for one in _owned(loader).values()]

    def restore() -> None:
        for one in undo:
            one()

    return restore


def _owned(loader: Iterable[Any]) -> dict[str, Generator]:
    """The generators that a loader, its samplers, its data sets or its collator hold, each once, by attribute path.

    Also those within objects that they hold, and in closures; not the global ones.
    """
    found: dict[str, Generator] = {}
    _search(loader, "", found, {id(one) for one in (*GLOBAL.values(), torch.default_generator)}, DEPTH)
    return found


def _search(holder: Any, path: str, found: dict[str, Generator], seen: set[int], depth: int) -> None:
    seen.add(id(holder))
    for name, value in _parts(holder):
        if id(value) in seen:
            continue
        if isinstance(value, Generator):
            seen.add(id(value))
            found[f"{path}{name}"] = value
        elif depth and not isinstance(value, type | ModuleType | nn.Module | Tensor):
            _search(value, f"{path}{name}.", found, seen, depth - 1)


def _parts(holder: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds: its attributes, a function's closure, the object of a method, the entries of a short list.

    Not the iterator of a data loader whose workers live on: their generators are in other processes.
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
        yield from ((name, value) for name, value in getattr(holder, "__dict__", {}).items() if name != "_iterator")


def closure_of(function: FunctionType) -> dict[str, Any]:
    """The names and values of a function's closure, without names that have no value yet."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def _state_of(one: Generator) -> Any:
    """A generator's state: of torch's a tensor, of the others JSON values."""
    if isinstance(one, torch.Generator):
        return one.get_state()
    if isinstance(one, random.Random):
        return list(one.getstate())
    state = one.get_state(legacy=False) if isinstance(one, np.random.RandomState) else one.bit_generator.state
    return _without_arrays(state)


def _set_state(one: Generator, state: Any) -> None:
    """Set a state of `_state_of`."""
    if isinstance(one, torch.Generator):
        one.set_state(state)
    elif isinstance(one, random.Random):
        version, keys, gauss = state
        one.setstate((version, tuple(keys), gauss))
    elif isinstance(one, np.random.RandomState):
        one.set_state(_with_arrays(state))
    else:
        one.bit_generator.state = _with_arrays(state)


def _without_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_arrays(value) for key, value in state.items()}
    return {"array": state.tolist(), "dtype": str(state.dtype)} if isinstance(state, np.ndarray) else state


def _with_arrays(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    if state.keys() == {"array", "dtype"}:
        return np.array(state["array"], dtype=state["dtype"])
    return {key: _with_arrays(value) for key, value in state.items()}
