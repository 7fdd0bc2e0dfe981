"""Context managers for eval mode and `requires_grad`, restored afterwards. Knows nothing of what runs inside."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from apt_model.data.rng import undisturbed
from apt_model.models.inner_state import inner_state_kept


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Context manager: the model is in eval mode; afterwards each module has its earlier mode and inner state again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with inner_state_kept(model):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def looking_at(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Context manager: the unwrapped model in eval mode; afterwards modes and random generators are as before."""
    module = extract_model_from_parallel(model)
    with undisturbed(device), in_eval_mode(module):
        yield module


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


def has_dropout(model: nn.Module) -> bool:
    """Whether a model drops activations at random in train mode: by a dropout layer, or within its attention."""
    rates = (getattr(one, name, 0) for one in model.modules() for name in ("p", "attention_dropout", "dropout_p"))
    return any(isinstance(rate, float) and 0 < rate < 1 for rate in rates)
