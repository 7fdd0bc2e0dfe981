"""Devices: pick one by name, move or lend a model to it, keep accelerate's process-wide state apart.

Knows nothing of who is teacher and student.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from itertools import chain
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

from apt_model.errors import ConfigError, DeviceError, brief
from apt_model.models.versions import INSTALLED
from apt_model.models.wide_matmul import is_amd
from apt_model.ranks.place import local_rank, place


def device_of(model: nn.Module) -> torch.device | None:
    """The device of a model's first parameter, or else of its first buffer; None for a model without any.

    What accelerate has put on a disk is on no device.
    """
    return next((one.device for one in chain(model.parameters(), model.buffers()) if not one.is_meta), None)


def is_bound(model: nn.Module) -> bool:
    """Whether a model must stay on the device it was loaded to: it is quantized, or has an accelerate `device_map`."""
    return bool(getattr(model, "is_quantized", False)) or getattr(model, "hf_device_map", None) is not None


def move(model: nn.Module, device: torch.device) -> torch.device:
    """Move a model to `device` unless it is bound to its own; returns the device that its input must be on."""
    if is_bound(model):
        return device_of(model) or device
    model.to(device)
    return device


@contextmanager
def lent(model: nn.Module, device: torch.device) -> Iterator[torch.device]:
    """Context manager: the model is on `device` if it may be moved, and afterwards back where it was.

    Yields the device that its input must be on.
    """
    homes = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    if len(homes) != 1 or is_bound(model):  # no weights, on several devices, or bound
        yield device_of(model) or device
        return
    (home,) = homes
    model.to(device)
    try:
        yield device
    finally:
        model.to(home)


def pick_device(name: str) -> torch.device:
    """The torch device of that name; "auto" is this machine's accelerator if it has one, else the CPU.

    Of several accelerators each rank of a machine has its own.

    Raises:
        ConfigError: the name is no device. DeviceError: this machine does not have it.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        several = found.type != "cpu" and place().size > 1
        return torch.device(found.type, local_rank() % torch.accelerator.device_count()) if several else found
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError("device is unknown", got=brief(name), expected="cpu, cuda, cuda:N or mps") from error
    if device.type != "cpu":
        backend = getattr(torch, device.type, None)
        if backend is None or not backend.is_available():
            raise DeviceError(f"this machine has no {device.type}", got=f"device={name}", fix="device=cpu")
        if device.index is not None and device.index >= backend.device_count():
            raise DeviceError("no device has this index", got=name, expected=f"0 to {backend.device_count() - 1}")
    return device


@contextmanager
def accelerate_state_of_our_own() -> Iterator[None]:
    """Context manager: accelerate's process-wide state is empty inside, and restored at the end.

    So a run neither inherits a device or precision from earlier code of the process nor leaves its own behind. Under a
    launcher of several processes the state describes the process group, and is left alone.
    """
    if place().size > 1:
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


def surroundings(device: torch.device) -> dict[str, Any]:
    """What decides in which order floats are added up: the same bytes come out where these are the same."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        **_of_this_process(),
    }


@cache
def _of_this_process() -> dict[str, str]:
    """CPU and versions: read once, for each checkpoint has them."""
    return {
        "cpu": f"{'AMD' if is_amd() else 'other'}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": str(torch.__version__),
        "transformers": INSTALLED,
        "tokenizers": version("tokenizers"),
    }
