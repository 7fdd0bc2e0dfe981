"""Load a model that is not trusted: each step by itself, so that what is raised names the file it was raised over.

Knows transformers' loaders and files; knows nothing of runs, adapters or quantization settings. First comes what can
be told without making anything (`directory`, `stored_tensors`), then config, generation config, weights and tokenizer,
each under `reading`; where a step reads several files, the one at fault is found by trying them apart.
"""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from apt_model.errors import ConfigError, ModelError, brief
from apt_model.models.directory import (
    CONFIG,
    GENERATION,
    INDEX,
    WEIGHTS,
    check_directory,
    check_hub_model,
    damaged,
    read_object,
)
from apt_model.models.forward import limits
from apt_model.models.reading import PATIENCE, reading
from apt_model.models.stored_tensors import Shapes, as_many_as_stored, refuse_unstored_layers, stored_tensors
from apt_model.models.text_part import loader_of, refuse_untaught
from apt_model.models.tokenizer import made_tokenizer, refuse_unfit_tokenizer, tokenizer_file
from apt_model.models.versions import INSTALLED, needed_version, upgrade


def load_parts(name: str | Path, path: Path, *, trust_remote_code: bool, **how: Any) -> tuple[Any, Any, Any]:
    """Load the model, its tokenizer or None, and the config as it is stored or None (GGUF).

    Args:
        name: as the user gave it: a hub id if `path` is not there.
        path: of a directory or GGUF file.
        trust_remote_code: run code that comes with the model.
        how: more for the model's `from_pretrained`.

    Raises:
        ModelError: names the file at fault. ConfigError: a package is missing. OutOfMemoryError: no room.
    """
    source, gguf = _source_of(path)
    config = {**gguf, "trust_remote_code": trust_remote_code}
    shapes = _look_at(path)
    reads = partial(reading, name, refuse=partial(_known_better, name, source, **config))
    with reads(CONFIG):
        seconds = patience(path, trust_remote_code=trust_remote_code)
    with reads(CONFIG, seconds=seconds):
        stored = None if gguf else AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    if not path.exists():
        check_hub_model(str(name))
    refuse_untaught(stored)
    if (path / GENERATION).is_file():
        with reads(GENERATION):
            GenerationConfig.from_pretrained(path)
    with reads(partial(_config_or_weights, path, stored, shapes, gguf)), _bounded(path, shapes):
        model, report = loader_of(stored).from_pretrained(
            source if path.exists() else str(name), use_safetensors=True, output_loading_info=True, **config, **how
        )
        _refuse_missing(report["missing_keys"])
    if getattr(model.config, "is_encoder_decoder", False):
        raise other_kind(name, type(model).__name__, is_encoder_decoder=True)
    _refuse_unmade(name, model, report["unexpected_keys"])
    _refuse_token_ids(name, path, model)
    with reads(partial(tokenizer_file, source, config)):
        tokenizer = made_tokenizer(source, **config)
    refuse_unfit_tokenizer(name, path, tokenizer, vocabulary=limits(model)[0])
    return model, tokenizer, stored


def _look_at(path: Path) -> Shapes | None:
    """Refuse what the files alone tell; the tensors that a directory stores, None where that is not known."""
    if not path.is_dir():
        return None
    check_directory(path)
    shapes = stored_tensors(path)
    if shapes is not None:
        refuse_unstored_layers(path, shapes)
    return shapes


def read_config(name: str | Path, path: Path) -> Any:
    """The config of a directory, or of a hub id where there is none of that name.

    Raises:
        ModelError: it cannot be read.
    """
    with reading(name, CONFIG):
        seconds = patience(path)
    with reading(name, CONFIG, seconds=seconds):
        return AutoConfig.from_pretrained(path if path.is_dir() else str(name))


def patience(path: Path, *, trust_remote_code: bool = False, **_: Any) -> float | None:
    """Seconds that a config may take to be made of its values; None: a download, or code that comes with the model.

    What transformers has to import for it is imported here, however long that takes.
    """
    if trust_remote_code or not (path / CONFIG).is_file():
        return None
    kind = read_object(path / CONFIG, str(path)).get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        CONFIG_MAPPING[kind]
    return PATIENCE


def _source_of(path: Path) -> tuple[str, dict[str, str]]:
    """Where `from_pretrained` loads from, and the argument that names a GGUF file there."""
    if not path.is_file():
        return str(path), {}
    if find_spec("gguf") is None:
        raise ConfigError(f"{path} needs the gguf package", fix="pip install 'apt-model[gguf]'")
    return str(path.parent), {"gguf_file": path.name}


def _bounded(path: Path, shapes: Shapes | None) -> AbstractContextManager[None]:
    return nullcontext() if shapes is None else as_many_as_stored(path, shapes)


def _refuse_missing(keys: Collection[str]) -> None:
    if keys:
        raise ValueError(f"weights are missing: {', '.join(sorted(keys)[:3])}")


def _refuse_unmade(name: str | Path, model: nn.Module, unexpected: Collection[str]) -> None:
    """Refuse a config that makes no layer at all of those that are stored.

    Raises:
        ModelError: it does.
    """
    empty = [where for where, part in model.named_modules() if isinstance(part, nn.ModuleList) and not len(part)]
    lost = [key for key in unexpected if any(key.startswith(f"{where}.") for where in empty)]
    if lost:
        raise damaged(str(name), CONFIG, "it asks for no layers", f"those of {', '.join(sorted(lost)[:3])} …")


def _refuse_token_ids(name: str | Path, path: Path, model: Any) -> None:
    """Refuse a generation config whose special tokens are no numbers of tokens.

    Raises:
        ModelError: names the file that it is from.
    """
    settings = getattr(model, "generation_config", None)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(settings, key, None)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and (isinstance(one, bool) or not isinstance(one, int) or abs(one) >= 2**31):
                file = GENERATION if (path / GENERATION).is_file() else CONFIG
                raise damaged(str(name), file, f"{key}={brief(value)}", "a token id")


def _known_better(name: str | Path, source: str, **how: Any) -> str | None:
    """What helps a model that could not be loaded because a newer transformers saved it, else None.

    Raises:
        ModelError: by its config it is no causal language model at all, or from a newer transformers.
    """
    _refuse_other_kind(name, source, **how)
    try:
        with reading(name, CONFIG, seconds=patience(Path(source), **how)):
            newer = needed_version(source, **how)
    except (ModelError, ConfigError):
        return None
    return upgrade(newer) + f" (it was saved by transformers {newer}, and this is {INSTALLED})" if newer else None


def _refuse_other_kind(name: str | Path, source: str, **how: Any) -> None:
    """Refuse a model that could not be loaded if its config tells that it is no causal language model.

    Raises:
        ModelError: it is an encoder-decoder, or transformers has no causal language model of its kind.
    """
    try:
        with reading(name, CONFIG, seconds=patience(Path(source), **how)):
            config = AutoConfig.from_pretrained(source, **how)
            kinds = ", ".join(config.architectures or [config.model_type])
    except (ModelError, ConfigError):
        return  # then the config is what is wrong
    is_known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or hasattr(config, "auto_map")
    if not (is_known and not config.is_encoder_decoder):
        raise other_kind(name, kinds, is_encoder_decoder=config.is_encoder_decoder)


def other_kind(name: str | Path, kinds: str, *, is_encoder_decoder: bool) -> ModelError:
    """The error of a model that is no causal language model, by its config."""
    kind = "an encoder-decoder" if is_encoder_decoder else "no causal language model"
    fix = "take a model that only looks back, such as a Llama or a GPT-2"
    return ModelError(f"model {name} is {kind}", got=kinds, expected=f"a causal language model in {CONFIG}", fix=fix)


def _config_or_weights(path: Path, stored: Any, shapes: Shapes | None, gguf: dict[str, str]) -> str:
    """The file at fault where a model could not be made: its config, if that alone makes none either."""
    if gguf:
        return gguf["gguf_file"]
    weights = next((name for name in (WEIGHTS, INDEX) if (path / name).exists()), "the weights")
    try:
        with reading(path, CONFIG, seconds=PATIENCE), torch.device("meta"), _bounded(path, shapes):
            loader_of(stored).from_config(stored)
    except (ModelError, ConfigError):
        return CONFIG
    return f"{CONFIG} and {weights}"
