"""Where a model computes, and whether it may be moved from there. Knows nothing of who is teacher and student."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device | None:
    """Where a model's first weight is, or its first buffer; None for one without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return None if first is None else first.device


def is_bound(model: nn.Module) -> bool:
    """Whether a model has to stay where it was loaded: quantized, or spread over devices by accelerate."""
    return bool(getattr(model, "is_quantized", False)) or getattr(model, "hf_device_map", None) is not None


def move(model: nn.Module, device: torch.device) -> torch.device:
    """Put a model on `device` if it may be moved; returns where it takes its input."""
    if is_bound(model):
        return device_of(model) or device
    model.to(device)
    return device


@contextmanager
def lent(model: nn.Module, device: torch.device) -> Iterator[torch.device]:
    """The model on `device`, if it may be moved; afterwards where it was. Yields where it takes its input."""
    homes = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    if len(homes) != 1 or is_bound(model):  # without weights, or spread over several devices by its owner
        yield device_of(model) or device
        return
    (home,) = homes
    model.to(device)
    try:
        yield device
    finally:
        model.to(home)
