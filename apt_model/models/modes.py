"""Context managers for eval mode and `requires_grad`, restored afterwards. Knows nothing of what runs inside."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Context manager: the model is in eval mode; afterwards each module has its earlier mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Context manager: eval mode and `requires_grad=False` on every parameter; afterwards both are as before."""
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        with in_eval_mode(model):
            yield
    finally:
        for parameter, requires_grad in gradients.items():
            parameter.requires_grad_(requires_grad)
