"""State that a module's `state_dict` does not hold: buffers that are not saved, and numbers that its forward changes.

A dynamic rotary embedding of transformers has both: `inv_freq`, and the longest row so far. Knows nothing of files.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 2**26  # bytes of one buffer; a larger one is a table that follows from the config
Numbers = dict[str, int | float | bool]


def read_inner(module: nn.Module) -> tuple[Numbers, dict[str, Tensor]]:
    """The numbers and the tensors, on the CPU, by their paths: "model.rotary_emb.inv_freq"."""
    numbers: Numbers = {}
    tensors: dict[str, Tensor] = {}
    for path, _, _, value in _inner(module):
        if not isinstance(value, Tensor):
            numbers[path] = value
        elif value.numel() * value.element_size() <= LARGEST:
            tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return numbers, tensors


def set_inner(module: nn.Module, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Set what `read_inner` returned; what a module does not have is passed over."""
    for path, holder, name, value in list(_inner(module)):
        if path in tensors and not _is_same(value, tensors[path]):
            device = value.device if isinstance(value, Tensor) else torch.device("cpu")
            setattr(holder, name, tensors[path].to(device))
        elif path in numbers and not _is_same(value, numbers[path]):
            setattr(holder, name, numbers[path])


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other)
    return type(one) is type(other) and bool(one == other)


@contextmanager
def inner_state_kept(module: nn.Module) -> Iterator[None]:
    """Context manager: afterwards the inner state is what it was, whatever a look at the module has made of it."""
    before = read_inner(module)
    try:
        yield
    finally:
        set_inner(module, *before)


def _inner(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """(path, module, name, value) of each."""
    saved = module.state_dict(keep_vars=True).keys()
    for prefix, part in module.named_modules():
        begin = f"{prefix}." if prefix else ""
        buffers = ((name, one) for name, one in part.named_buffers(recurse=False) if f"{begin}{name}" not in saved)
        plain = ((name, one) for name, one in vars(part).items() if name != "training" and _is_number(one))
        yield from ((f"{begin}{name}", part, name, value) for name, value in (*buffers, *plain))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float, bool) or (type(value) is Tensor and value.ndim == 0)
