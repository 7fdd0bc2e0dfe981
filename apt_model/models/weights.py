"""Save and load the weights that training changes as safetensors: all of a module, or of a PEFT model its adapters.

Knows nothing of checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from apt_model.models.lora import adapter_tensors, fill_adapters, has_adapters
from apt_model.models.sharding import fill


def weights_of(module: nn.Module) -> Mapping[str, Tensor]:
    """The tensors that `save_weights` writes, by name."""
    return adapter_tensors(module) if has_adapters(module) else module.state_dict()


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's weights as safetensors."""
    if has_adapters(module):
        save_file({name: tensor.cpu().contiguous() for name, tensor in adapter_tensors(module).items()}, path)
    else:
        save_model(module, str(path))


def load_weights(module: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote.

    Raises:
        ValueError, RuntimeError: names or shapes differ from the module's.
    """
    if any(isinstance(one, DTensor) for one in module.parameters()):
        with safe_open(path, framework="pt") as file:
            fill(module, ((name, file.get_tensor(name)) for name in file.keys()))  # noqa: SIM118 - it is no dict
    elif has_adapters(module):
        fill_adapters(module, load_file(path))
    else:
        load_model(module, str(path))


def get_model_size(model: nn.Module) -> float:
    """Megabytes (2**20 bytes) of a model's parameters and saved buffers; tied tensors count once."""
    saved = model.state_dict(keep_vars=True).values()
    tensors = {(memory_of(one), one.storage_offset()): one for one in saved if isinstance(one, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 2**20


def memory_of(tensor: Tensor) -> int:
    """What tensors in the same memory have in common: its address; of a sharded or meta tensor, the object itself."""
    has_own = not tensor.is_meta and not isinstance(tensor, DTensor)
    return tensor.untyped_storage().data_ptr() if has_own else id(tensor)
