"""Save and restore the states of random generators: python's, numpy's, torch's, and those that a data loader owns.

Knows nothing of what draws from them, nor of how the states are kept.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apt_model.data.holdings import GLOBAL, Generator, walk

Tensors = dict[str, Tensor]
GlobalStates = tuple[Any, Any, Tensor]


def joined(parts: Mapping[str, Tensors]) -> Tensors:
    """The tensors of several parts in one mapping, as "part.name"."""
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def below(part: str, tensors: Tensors) -> Tensors:
    """The tensors of one part of what `joined` returned."""
    return {name.removeprefix(f"{part}."): one for name, one in tensors.items() if name.startswith(f"{part}.")}


def read_generators(device: torch.device) -> tuple[dict[str, Any], Tensors]:
    """The states of the global generators, as (JSON values, tensors by name)."""
    plain: dict[str, Any] = {name: state_of(one) for name, one in GLOBAL.items()}
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return plain, tensors


def set_generators(plain: dict[str, Any], tensors: Tensors, device: torch.device) -> None:
    """Restore the states that `read_generators` returned.

    Raises:
        KeyError: there is no state for one of the generators.
    """
    for name, one in GLOBAL.items():
        set_state(one, plain[name])
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)


def drawn_apart(
    batches: Iterable[Any],
    *,
    first: GlobalStates | None = None,
    going_on: bool = False,
    note: Callable[[GlobalStates], None] | None = None,
) -> Iterator[Any]:
    """The batches, drawn with global generators of their own from the second on: training does not move theirs.

    So an epoch that is drawn again, without the training between, has the same batches: of a sampler or transform that
    draws from the global generators too. The first is drawn from those of the training: a loader seeds itself there.

    Args:
        batches: of an epoch.
        first: draw the first with these states instead, and leave the training's alone.
        going_on: `first` are the states in the middle of an epoch, where that the iterator begins draws nothing.
        note: is told, before each batch, the states that it is drawn with.
    """
    end, is_first = object(), first is None
    training = global_states()
    if first is not None:
        _set_global_states(first)
    iterator = iter(batches)
    own = first if first is not None and going_on else global_states()
    if first is not None:
        _set_global_states(training)
    while True:
        training = global_states()
        if not is_first:
            _set_global_states(own)
        if note is not None:
            note(training if is_first else own)
        value = next(iterator, end)
        own = global_states()
        if not is_first:
            _set_global_states(training)
        if value is end:
            return
        is_first = False
        yield value


def global_states() -> GlobalStates:
    """The states of python's, numpy's and torch's global generators, on the CPU."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_global_states(states: GlobalStates) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def generator_names(loader: Iterable[Any]) -> list[str]:
    """Attribute paths of the generators that a data loader owns: "sampler.generator", "dataset.rng"."""
    return [path for path, value in walk(loader).values.items() if isinstance(value, Generator)]


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


def state_of(one: Generator) -> Any:
    """The state of a generator: of torch's a tensor, of the others JSON values."""
    if isinstance(one, torch.Generator):
        return one.get_state()
    if isinstance(one, random.Random):
        return list(one.getstate())
    state = one.get_state(legacy=False) if isinstance(one, np.random.RandomState) else one.bit_generator.state
    return _without_arrays(state)


def set_state(one: Generator, state: Any) -> None:
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
