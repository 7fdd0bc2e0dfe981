"""Split an optimizer's `state_dict` into tensors and JSON values, and load it back. Knows nothing of files."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from apt_model.data.rng import Tensors
from apt_model.models.sharding import on_first, part_of


def optimizer_state(optimizer: Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state as tensors, named "parameter index.state name", and JSON values.

    All processes call it: of sharded parameters the tensors are whole on the first one, and empty on the others.
    """
    state = optimizer.state_dict()
    tensors: Tensors = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = on_first(value).clone(memory_format=torch.contiguous_format)
            else:
                plain.setdefault(str(index), {})[name] = value
    return tensors, {"groups": state["param_groups"], "plain": plain, "tensors": sorted(tensors)}


def refuse_missing(what: str, expected: Iterable[str], found: Iterable[str]) -> None:
    """Refuse a state that lacks names: many `load_state_dict` silently keep initial values for what is missing.

    Raises:
        ValueError: names what is missing.
    """
    missing = sorted(set(expected) - set(found))
    if missing:
        raise ValueError(f"{what}: {', '.join(missing)[:200]} missing")


def load_optimizer_state(optimizer: Optimizer, tensors: Tensors, settings: Mapping[str, Any]) -> None:
    """Load what `optimizer_state` returned.

    Raises:
        ValueError: it is another optimizer's, or incomplete.
    """
    refuse_missing("optimizer", settings["tensors"], tensors)
    state: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in settings["plain"].items()}
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        state.setdefault(int(index), {})[name] = part_of(tensor, like) if tensor.shape == like.shape else tensor
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()} for group in settings["groups"]
    ]
    for now, then in zip(optimizer.state_dict()["param_groups"], groups, strict=True):
        refuse_missing("optimizer", now, then)
    expected = {key for key, entry in optimizer.state_dict()["state"].items() if entry}
    if expected and expected != state.keys():
        raise ValueError(f"the optimizer's state is of {len(state)} parameters, not {len(expected)}")
    optimizer.load_state_dict({"state": state, "param_groups": groups})
