"""Load a model with its tokenizer from a directory, run, GGUF file or hub id, and save it in Hugging Face's format.

Knows nothing of training. Reads safetensors and GGUF only, unpickles nothing, and runs no remote code unless told to.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model as load_tensors
from safetensors.torch import save_model as save_tensors
from torch import nn
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from apt_model.data.notices import Tell, warn
from apt_model.data.template import has_template
from apt_model.data.template_run import FILE
from apt_model.errors import AptModelError, ConfigError, ModelError, StorageError, reason_of
from apt_model.events.runfile import EVENTS, STUDENT
from apt_model.models.directory import CONFIG, GENERATION, WEIGHTS, check_directory, check_hub_model
from apt_model.models.generation_settings import savable_settings
from apt_model.models.loading import load_parts, read_config
from apt_model.models.lora import (
    ADAPTER_CONFIG,
    attach,
    base_of,
    has_adapters,
    keep_one_kind,
    merged,
)
from apt_model.models.quiet import quiet_peft, quiet_transformers, told_if_whole
from apt_model.models.reading import reading
from apt_model.models.readme import Training, may_write, write_readme
from apt_model.models.text_part import left_out_of, text_part
from apt_model.models.tokenizer import load_tokenizer
from apt_model.models.versions import INSTALLED, newer_version, upgrade

Quantization = Literal["bnb-8bit", "bnb-4bit"]

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@told_if_whole()
@quiet_transformers()
def load_model(
    name: str | Path,
    *,
    model: nn.Module | None = None,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    quantization: Quantization | None = None,
    device: torch.device | None = None,
    trust_remote_code: bool = False,
    tell: Tell = warn,
) -> tuple[Any, Any, Any]:
    """Load a model with its tokenizer and config. Of a model that also takes images or sound, its text part.

    Args:
        name: a Hugging Face model directory, a hub id, a run directory (its student is loaded), a GGUF file (its
            weights are dequantized), saved LoRA adapters (their base model is loaded too), or a directory with exactly
            one model somewhere below it, such as an installed package.
        model: a plain module that `save_model` saved: its weights are filled in from `name`.
        dtype: of the weights; "auto": as they are stored. Ignored for quantized weights.
        quantization: let bitsandbytes quantize the weights to 8 or 4 bits (NF4) while they are read. A model that is
            quantized already (GPTQ, AWQ, bitsandbytes) has that in its config, and needs nothing here.
        device: for `quantization`: where the model is loaded, for it cannot be moved afterwards; None: the CPU. The
            meta device: all but the weights, for a process that gets them from another one.
        trust_remote_code: run code that comes with the model; only this argument can allow it.
        tell: told if towers for images or sound are left out, or a newer transformers saved the model.

    Returns:
        `(model, tokenizer, config)`, the model in eval mode; tokenizer and config are None if there are none.

    Raises:
        ModelError: no such model, a damaged one, one that needs remote code, or an encoder-decoder.
        ConfigError: a package needed to read it is not installed: `gguf`, `peft`, bitsandbytes, or one that
            transformers names.
    """
    path = _student_in(name)
    if model is not None:
        return _fill(model, path), None, None
    if not path.exists() and not _HUB_ID.fullmatch(str(name)):
        raise ModelError(f"there is no directory {name}", fix="check the path")
    if (path / ADAPTER_CONFIG).exists() and not (path / CONFIG).exists():
        return _with_adapters(path, dtype, tell, device)
    how = _plain(dtype, device) if quantization is None else _quantized(quantization, device)
    return _whole(name, path, trust_remote_code=trust_remote_code, tell=tell, **how)


def _whole(name: str | Path, path: Path, *, trust_remote_code: bool, tell: Tell, **how: Any) -> tuple[Any, Any, Any]:
    """Load a model that is no adapters."""
    path = _only_model_in(path) if path.is_dir() and not os.path.lexists(path / CONFIG) else path
    loaded, tokenizer, stored = load_parts(name, path, trust_remote_code=trust_remote_code, **how)
    _forget_gguf(loaded)
    loaded, left_out = text_part(loaded)
    left_out = left_out or left_out_of(stored, loaded)
    if left_out:
        tell("towers_left_out", name=str(name), parts=", ".join(left_out), model=type(loaded).__name__)
    newer = newer_version(loaded.config)
    if newer is not None:
        tell("newer_transformers", name=str(name), saved=newer, here=INSTALLED, fix=upgrade(newer))
    return loaded, tokenizer, loaded.config


def _student_in(name: str | Path) -> Path:
    """The student of a run directory; another path as it is."""
    path = Path(name)
    if (path / STUDENT).is_dir():
        return path / STUDENT
    if (path / EVENTS).exists():
        raise ModelError(f"run {name} has no student", fix="let the run finish: the student is saved at its end")
    return path


def _plain(dtype: torch.dtype | Literal["auto"], device: torch.device | None) -> dict[str, Any]:
    """Arguments of `from_pretrained` for weights as they are, or for none at all."""
    return {"dtype": dtype, **({"device_map": "meta"} if device is not None and device.type == "meta" else {})}


def _quantized(quantization: Quantization, device: torch.device | None) -> dict[str, Any]:
    """Arguments of `from_pretrained` for bitsandbytes.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"{quantization} needs the bitsandbytes package", fix="pip install bitsandbytes")
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    settings: dict[str, Any] = four if quantization == "bnb-4bit" else {"load_in_8bit": True}
    return {
        "quantization_config": BitsAndBytesConfig(**settings),  # type: ignore[no-untyped-call]
        "device_map": {"": device or torch.device("cpu")},
        "dtype": torch.bfloat16 if settings is four else torch.float16,  # what its kernels compute in
    }


@quiet_transformers()
def load_description(name: str | Path) -> tuple[Any, Any]:
    """Load a model's config, None if there is none, and its tokenizer, without its weights.

    Args:
        name: a directory, run directory or hub id.

    Raises:
        ModelError: no tokenizer, or a file that cannot be read.
    """
    path = _student_in(name)
    if not path.is_dir() and not _HUB_ID.fullmatch(str(name)):
        raise ModelError(f"there is no directory {name}", fix="check the path")
    tokenizer, config = load_tokenizer(name, path), None
    if tokenizer is None:
        raise ModelError(f"{name} has no tokenizer", fix="name the directory or hub id of one")
    if not path.is_dir() or (path / CONFIG).is_file():
        config = read_config(name, path)
    if not path.is_dir():
        check_hub_model(str(name))
    return config, tokenizer


@quiet_peft()
@quiet_transformers()
def save_model(
    model: nn.Module,
    tokenizer: Any,
    path: str | Path,
    *,
    merge_adapters: bool = False,
    training: Training | None = None,
) -> None:
    """Save a model, and its tokenizer if there is one, as a directory that transformers can load, with a model card.

    Of a plain module the weights alone are saved; `load_model(path, model=...)` loads them. Of a PEFT model
    the adapters alone are saved, or with `merge_adapters` a plain model with the adapters merged into its weights.
    README.md tells of `training` what is known; a README.md that was not written here is kept. Adapters
    and the template of a chat that stood in the directory are not left beside the new model.

    Raises:
        StorageError: the directory cannot be written, or holds a whole model where adapters are to be saved.
        ModelError: adapters that would not be loaded again: several, or one that is not named "default".
    """
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        says = may_write(directory)
        keep_one_kind(directory, model, merges=merge_adapters)
        if has_adapters(model) and merge_adapters:
            model = merged(model)
        settings = getattr(model, "generation_config", None)
        if settings is not None:
            model.generation_config = savable_settings(settings)  # type: ignore[assignment]
        if has_adapters(model):
            model.save_pretrained(str(directory))  # type: ignore[operator]
            if settings is not None:
                model.generation_config.save_pretrained(directory)  # type: ignore[operator,union-attr]
        elif isinstance(model, PreTrainedModel):
            _forget_gguf(model)
            model.save_pretrained(directory)
        else:
            save_tensors(model, str(directory / WEIGHTS))
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(directory)
            if not has_template(tokenizer):  # not that of a tokenizer that stood here
                (directory / FILE).unlink(missing_ok=True)
        if says:
            write_readme(directory, model, tokenizer, training)
    except AptModelError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        got = reason_of(error)
        raise StorageError(
            f"model cannot be saved to {path}", got=got, fix="check that it is writable and has space"
        ) from error


def _with_adapters(
    path: Path, dtype: torch.dtype | Literal["auto"], tell: Tell, device: torch.device | None
) -> tuple[Any, Any, Any]:
    """Load saved adapters with their base model; tokenizer and `generation_config` beside them go before the base's.

    The base is the one thing outside of a model's directory that a file in it may name; it is read as carefully.
    """
    check_directory(path)
    base = base_of(path)
    stands = _student_in(base)
    if (stands / ADAPTER_CONFIG).exists() and not (stands / CONFIG).exists():
        fix = f"name a whole model in {ADAPTER_CONFIG}"
        raise ModelError(f"adapters in {path} have other adapters as their base model", got=base, fix=fix)
    model, tokenizer, config = load_model(base, dtype=dtype, tell=tell, device=device)
    beside = load_tokenizer(path, path) if any(path.glob("tokenizer*")) else None
    if (path / GENERATION).exists():
        with reading(path, GENERATION):
            model.generation_config = GenerationConfig.from_pretrained(path)
    return attach(model, path), beside if beside is not None else tokenizer, config


def _fill(model: nn.Module, path: Path) -> nn.Module:
    try:
        load_tensors(model, str(path / WEIGHTS))
    except Exception as error:  # by place: the file may hold anything
        raise ModelError(f"weights in {path / WEIGHTS} do not fit the model", got=reason_of(error)) from error
    return model.eval()


def _only_model_in(directory: Path) -> Path:
    """The directory or GGUF file of the only model below `directory`.

    Raises:
        ModelError: there is none, or more than one.
    """
    found = [path.parent for path in sorted(directory.rglob(CONFIG)) if any(path.parent.glob("*.safetensors"))]
    found += sorted(directory.rglob("*.gguf"))
    if len(found) == 1:
        return found[0]
    if found:
        seen = ", ".join(str(path) for path in found[:5])
        raise ModelError(f"{directory} holds {len(found)} models", got=seen, fix="name one of them")
    expected = "config.json beside *.safetensors, or a *.gguf file"
    raise ModelError(f"{directory} holds no model", expected=expected, fix="check the path")


def _forget_gguf(model: Any) -> None:
    """Drop the GGUF mark: transformers refuses to save such a model as quantized, but its weights are plain floats."""
    method = getattr(getattr(model.config, "quantization_config", None), "quant_method", None)
    if method == "gguf":
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
