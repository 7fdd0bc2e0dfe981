"""What of a module changes while it learns, to a file and back: where it has adapters these alone, else all of it."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from apt_model.models.lora import adapter_tensors, fill_adapters, has_adapters


def weights_of(module: nn.Module) -> Mapping[str, Tensor]:
    """The tensors that are kept, by name."""
    return adapter_tensors(module) if has_adapters(module) else module.state_dict()


def save_weights(module: nn.Module, path: Path) -> None:
    """Write them as safetensors."""
    if has_adapters(module):
        save_file({name: tensor.cpu().contiguous() for name, tensor in adapter_tensors(module).items()}, path)
    else:
        save_model(module, str(path))


def load_weights(module: nn.Module, path: Path) -> None:
    """Take them up again.

    Raises:
        ValueError, RuntimeError: they are another module's.
    """
    if has_adapters(module):
        fill_adapters(module, load_file(path))
    else:
        load_model(module, str(path))
