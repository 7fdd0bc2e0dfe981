"""Where a model computes, and whether it may be moved from there. Knows nothing of who is teacher and student."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

from apt_model.errors import ConfigError, DeviceError, brief


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


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the accelerator of this machine, or the CPU.

    Raises:
        ConfigError: no such device; DeviceError: not on this machine.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError("device is unknown", got=brief(name), expected="cpu, cuda, cuda:N or mps") from error
    if device.type != "cpu":
        backend = getattr(torch, device.type, None)
        if backend is None or not backend.is_available():
            raise DeviceError(f"this machine has no {device.type}", got=f"device={name}", fix="device=cpu")
        if device.index is not None and device.index >= backend.device_count():
            raise DeviceError("device is not there", got=name, expected=f"0 to {backend.device_count() - 1}")
    return device


@contextmanager
def accelerate_state_of_our_own() -> Iterator[None]:
    """accelerate keeps its state process-wide: a run starts without it, and gives back what was there before.

    Under a launcher the processes share it, and it stays.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return
    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield
    finally:
        for state, values in zip(shared, before, strict=True):
            state.clear()
            state.update(values)
