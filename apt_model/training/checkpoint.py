"""Models on disk: load one by name, save one so that it can be loaded without us.

Knows nothing of training. Only safetensors are read, nothing is unpickled, no remote code runs.
"""

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_model as load_tensors
from safetensors.torch import save_model as save_tensors
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from apt_model.errors import ModelError, StorageError
from apt_model.events.runfile import EVENTS, STUDENT

WEIGHTS = "model.safetensors"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_model(
    name: str | Path, *, model: nn.Module | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any, Any]:
    """A model with its tokenizer and config.

    Args:
        name: a Hugging Face model directory, a hub id, or a run directory (its student is loaded).
        model: a plain module that `save_model` saved: its weights are filled in from `name`.
        dtype: of the weights.

    Returns:
        `(model, tokenizer, config)`, the model in eval mode; tokenizer and config are None where there are none.

    Raises:
        ModelError: no such model, a damaged one, or one that would need code from outside.
    """
    path = Path(name)
    if (path / STUDENT).is_dir():
        path = path / STUDENT
    elif (path / EVENTS).exists():
        raise ModelError(f"run {name} has no student", fix="let a lesson finish: the student is saved at its end")
    if model is not None:
        return _fill(model, path), None, None
    if not path.exists() and not _HUB_ID.fullmatch(str(name)):
        raise ModelError(f"there is no directory {name}", fix="check the path")
    source = str(path) if path.exists() else str(name)
    try:
        loading: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        loaded, report = loading
        if report["missing_keys"]:
            raise ValueError(f"weights are missing: {', '.join(sorted(report['missing_keys'])[:3])}")
        return loaded, _tokenizer(source), loaded.config
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise ModelError(
            f"model {name} cannot be loaded",
            got=_first_line(error),
            expected="a Hugging Face model directory with safetensors, a hub id, or a run directory",
        ) from error


def save_model(model: nn.Module, tokenizer: Any, path: str | Path) -> None:
    """Save a model (and its tokenizer, if there is one) as a directory that transformers loads without us.

    A plain module is saved as safetensors alone; `load_model(path, model=...)` fills it again.

    Raises:
        StorageError: the directory cannot be written.
    """
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if isinstance(model, PreTrainedModel):
            model.save_pretrained(directory)
        else:
            save_tensors(model, str(directory / WEIGHTS))
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(directory)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise StorageError(f"model cannot be saved to {path}", got=_first_line(error)) from error


def _fill(model: nn.Module, path: Path) -> nn.Module:
    try:
        load_tensors(model, str(path / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"weights in {path} do not fill the model", got=_first_line(error)) from error
    return model.eval()


def _tokenizer(source: str) -> Any:
    """The tokenizer beside a model; None where a local directory has no tokenizer file at all."""
    path = Path(source)
    if path.is_dir() and not any(path.glob("*token*")) and not any(path.glob("vocab*")):
        return None
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
