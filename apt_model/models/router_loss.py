"""The load-balancing loss of a mixture of experts, as transformers computes it in a model's forward pass.

Knows configs and outputs of models; knows nothing of the other terms of a loss, or of who is taught.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers import PretrainedConfig

COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")  # Mixtral and its like, JetMoE


def router_coefficient(model: nn.Module) -> float | None:
    """What the router loss is multiplied by: 0 where a config with experts leaves it off; None without experts.

    A config asks for it by `output_router_logits=True`, as it does in transformers' own training.
    """
    config: Any = getattr(extract_model_from_parallel(model, keep_torch_compile=False), "config", None)
    config = config.get_text_config() if isinstance(config, PretrainedConfig) else config
    if not hasattr(config, "output_router_logits"):
        return None
    found = [getattr(config, name) for name in COEFFICIENTS if getattr(config, name, None)]
    return float(found[0]) if found and config.output_router_logits else 0.0


@contextmanager
def router_losses(model: nn.Module) -> Iterator[list[Tensor]]:
    """Context manager: the list gets the router loss (Switch Transformer, arXiv:2101.03961, equations 4 to 6) of each
    forward pass inside, a scalar with gradient to the routers; nothing from a model that computes none.
    """
    seen: list[Tensor] = []

    def capture(_: nn.Module, __: Any, output: Any) -> None:
        found = getattr(output, "aux_loss", None)
        if isinstance(found, Tensor):
            seen.append(found)

    handle = extract_model_from_parallel(model, keep_torch_compile=False).register_forward_hook(capture)
    try:
        yield seen
    finally:
        handle.remove()
