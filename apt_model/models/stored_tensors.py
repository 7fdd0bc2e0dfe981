"""The tensors that a model directory stores, and what its config may ask for by that evidence.

Knows safetensors' headers and torch's modules; knows nothing of what a model is. A config is a wish: a billion layers
are refused because no tensors are stored for them, before they are made.
"""

import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from apt_model.errors import brief
from apt_model.models.directory import CONFIG, INDEX, WEIGHTS, damaged, read_object, values_of
from apt_model.models.reading import reading

FEW, EACH = 1000, 50  # modules and parameters: any model may have a few, and so many for each tensor that it stores
LAYERS = {
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "num_decoder_layers",
    "num_encoder_layers",
    "decoder_layers",
    "encoder_layers",
    "layers",
    "max_window_layers",
}  # settings that count layers
SMALL, LARGER = 10**7, 16  # numbers: any model may have so many, and so many for each that it stores
PACKED = 8  # quantized weights in one number of their file

Shapes = Mapping[str, tuple[int, ...]]


def stored_tensors(directory: Path) -> Shapes | None:
    """Names and shapes of the tensors in a model directory, from the headers alone; None if it has no weights.

    Raises:
        ModelError: a file of weights is damaged; names it.
    """
    config = read_object(directory / CONFIG, str(directory))
    explicit = config.get("transformers_weights")
    if explicit is not None:
        names = [explicit]
    elif (directory / WEIGHTS).exists():
        names = [WEIGHTS]
    elif (directory / INDEX).exists():
        names = sorted(set(read_object(directory / INDEX, str(directory))["weight_map"].values()))
    else:
        return None
    return shapes_in(directory, names)


def shapes_in(directory: Path, names: Iterable[str]) -> Shapes:
    """Names and shapes of the tensors in these safetensors files.

    Raises:
        ModelError: a file is damaged; names it.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        with reading(directory, name), safe_open(directory / name, framework="pt") as file:
            shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    return shapes


def refuse_unstored_layers(directory: Path, shapes: Shapes) -> None:
    """Refuse a config that asks for more layers than there are tensors, where a list of them would fill the memory.

    Raises:
        ModelError: names the setting.
    """
    for key, value in values_of(read_object(directory / CONFIG, str(directory))):
        if key.rpartition(".")[2] in LAYERS and isinstance(value, int) and value > FEW + len(shapes):
            raise damaged(str(directory), CONFIG, f"{key}={brief(value)}", f"layers for {len(shapes)} stored tensors")


@contextmanager
def as_many_as_stored(directory: Path, shapes: Shapes) -> Iterator[None]:
    """Context manager: refuse to make a model of many more modules, or much larger ones, than is stored.

    transformers gives weights that are missing their full size before it says that they are.

    Raises:
        ModelError: the config asks for more.
    """
    is_packed = "quantization_config" in read_object(directory / CONFIG, str(directory))
    most = SMALL + LARGER * (PACKED if is_packed else 1) * sum(map(math.prod, shapes.values()))
    made, elements, thread = 0, 0, threading.get_ident()

    def count(_: Any, __: str, part: Any) -> None:
        nonlocal made, elements
        if threading.get_ident() != thread:
            return
        made, elements = made + 1, elements + (part.numel() if isinstance(part, Tensor) else 0)
        if made > FEW + EACH * len(shapes) or elements > most:
            got = f"a model of more than {made - 1} modules and parameters with {elements} numbers"
            raise damaged(str(directory), CONFIG, got, f"one for the {len(shapes)} stored tensors")

    hooks = [register_module_module_registration_hook(count), register_module_parameter_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
