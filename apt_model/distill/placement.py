"""Where a model computes, and whether it may be moved from there. Knows nothing of who is teacher and student."""

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
