"""Save and restore the states of random generators: python's, numpy's, torch's, and a DataLoader's.

Knows nothing of what draws from them, nor of how the states are kept.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def read_generators(device: torch.device, loader: Iterable[Any]) -> tuple[dict[str, Any], Tensors]:
    """The states of all generators, as (JSON values, tensors by name)."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    plain = {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    tensors |= {f"loader.{index}": generator.get_state() for index, generator in enumerate(_own_generators(loader))}
    return plain, tensors


def set_generators(plain: dict[str, Any], tensors: Tensors, device: torch.device, loader: Iterable[Any]) -> None:
    """Restore the states that `read_generators` returned.

    Raises:
        KeyError: there is no state for one of the generators.
    """
    version, keys, gauss = plain["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, numpy_keys, *rest = plain["numpy"]
    np.random.set_state((kind, np.array(numpy_keys, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)
    for index, generator in enumerate(_own_generators(loader)):
        generator.set_state(tensors[f"loader.{index}"])


def _own_generators(loader: Iterable[Any]) -> list[torch.Generator]:
    """The `generator` objects of a DataLoader and its samplers, each once, without torch's global one."""
    found = [getattr(holder, "generator", None) for holder in (loader, *_samplers(loader))]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _samplers(loader: Iterable[Any]) -> tuple[Any, ...]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    return getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)


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
    """Context manager: afterwards the generators that a DataLoader, its samplers, data set and collator own are as
    they were."""
    holders = (loader, *_samplers(loader), getattr(loader, "dataset", None), getattr(loader, "collate_fn", None))
    owned = [one for holder in holders for one in getattr(holder, "__dict__", {}).values()]
    restore = [undo for undo in map(_restorer, owned) if undo is not None]
    try:
        yield
    finally:
        for undo in restore:
            undo()


def _restorer(one: Any) -> Callable[[], Any] | None:
    """What sets a generator to its present state; None for anything else."""
    if isinstance(one, torch.Generator):
        return partial(one.set_state, one.get_state())
    if isinstance(one, random.Random):
        return partial(one.setstate, one.getstate())
    if isinstance(one, np.random.Generator):
        return partial(setattr, one.bit_generator, "state", one.bit_generator.state)
    return None
