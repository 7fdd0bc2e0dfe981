"""A model without weights, made on the meta device from the config of a directory: sizes alone, in a moment."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from apt_model.models.directory import CONFIG, check_directory
from apt_model.models.loading import read_config
from apt_model.models.quiet import quiet_transformers
from apt_model.models.reading import PATIENCE, reading
from apt_model.models.text_part import refuse_untaught


@quiet_transformers()
def read_skeleton(path: Path) -> Any:
    """The causal language model of a directory, on the meta device; of a model that also sees or hears, its text part.

    Raises:
        ModelError: its config cannot be read, or is of no causal language model.
    """
    check_directory(path)
    stored = read_config(path, path)
    refuse_untaught(stored)
    with reading(path, CONFIG, seconds=PATIENCE), torch.device("meta"):
        return AutoModelForCausalLM.from_config(stored.get_text_config())  # type: ignore[no-untyped-call]


def layers_of(model: nn.Module) -> list[int]:
    """The parameters of each layer: of the list of modules that holds the most."""
    stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    sizes = [[sum(p.numel() for p in layer.parameters()) for layer in stack] for stack in stacks]
    return max(sizes, key=sum, default=[])
