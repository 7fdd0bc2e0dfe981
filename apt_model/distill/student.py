"""A smaller model of the teacher's kind. Knows configs; knows nothing of training."""

from copy import deepcopy
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from apt_model.errors import ConfigError, ModelError

MLP_WIDTHS = ("intermediate_size", "ffn_dim", "n_inner")  # as Llama, OPT and GPT-2 call it
PER_LAYER = ("layer_types", "no_rope_layers")  # lists with an entry for each layer


def create_compressed_model(
    config_or_model: Any, *, num_layers: int | None = None, hidden_size: int | None = None
) -> Any:
    """A student with fresh weights: the teacher's architecture with fewer layers, a smaller width, or both.

    Head size is kept where it divides the new width, and so is the ratio of query to key-value heads; the MLP
    shrinks in proportion.

    Args:
        config_or_model: the teacher, or its config.
        num_layers: of the student; the teacher's where None.
        hidden_size: of the student; the teacher's where None.

    Raises:
        ModelError: not a Hugging Face causal language model, or a width its heads cannot divide.
    """
    config = getattr(config_or_model, "config", config_or_model)
    if not isinstance(config, PretrainedConfig):
        raise ModelError(
            "cannot shrink this model", got=type(config).__name__, expected="a Hugging Face model or config"
        )
    small = deepcopy(config.get_text_config())
    if hasattr(small, "quantization_config"):
        del small.quantization_config
    try:
        if num_layers is not None:
            _cut_layers(small, num_layers)
        if hidden_size is not None:
            _cut_width(small, hidden_size)
        return AutoModelForCausalLM.from_config(small, dtype=torch.float32)  # type: ignore[no-untyped-call]
    except ModelError:
        raise
    except (ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError) as error:
        raise ModelError("cannot make a student of this kind", got=str(error).strip().split("\n")[0][:300]) from error


def parse_student(description: str) -> dict[str, int] | None:
    """`"layers=6,hidden=384"` as arguments of `create_compressed_model`; None if it is a path or id instead.

    Raises:
        ConfigError: it looks like a description, but a key or number is wrong.
    """
    if "=" not in description:
        return None
    keys = {"layers": "num_layers", "hidden": "hidden_size"}
    sizes: dict[str, int] = {}
    for part in description.split(","):
        key, _, number = part.partition("=")
        if key.strip() not in keys or not number.strip().isdecimal() or int(number) < 1:
            raise ConfigError(
                "student is not understood", got=repr(part), expected="layers=N,hidden=N, a directory or a hub id"
            )
        sizes[keys[key.strip()]] = int(number)
    return sizes


def _cut_layers(config: PretrainedConfig, num_layers: int) -> None:
    before = config.num_hidden_layers
    if not 1 <= num_layers <= before:
        raise ModelError("num_layers does not fit the teacher", got=num_layers, expected=f"1 to {before}")
    config.num_hidden_layers = num_layers
    spread = [round(i * (before - 1) / max(num_layers - 1, 1)) for i in range(num_layers)]
    for name in PER_LAYER:
        kinds = getattr(config, name, None)
        if kinds:
            setattr(config, name, [kinds[i] for i in spread])


def _cut_width(config: PretrainedConfig, hidden_size: int) -> None:
    before, heads = config.hidden_size, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or before // heads
    tied_to_width = head_dim * heads == before
    new_heads = hidden_size // head_dim if tied_to_width else max(1, round(heads * hidden_size / before))
    if hidden_size < 1 or new_heads < 1 or (tied_to_width and new_heads * head_dim != hidden_size):
        raise ModelError(
            "hidden_size does not divide into heads", got=hidden_size, expected=f"a multiple of {head_dim}"
        )
    groups = heads // (getattr(config, "num_key_value_heads", None) or heads)
    kv_heads = max(1, new_heads // groups)
    while new_heads % kv_heads:
        kv_heads -= 1
    config.hidden_size, config.num_attention_heads = hidden_size, new_heads
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = kv_heads
    for name in MLP_WIDTHS:
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, max(8, round(getattr(config, name) * hidden_size / before / 8) * 8))
    if getattr(config, "word_embed_proj_dim", None) == before:
        config.word_embed_proj_dim = hidden_size
