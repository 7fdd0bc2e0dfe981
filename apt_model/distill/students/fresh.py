"""A student from a shrunken config of the teacher: fresh weights, or copied layers. Parse `--student` descriptions.

Knows configs; knows nothing of activations or training.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from apt_model.distill.students.depth import (
    as_saved,
    blocks_of,
    chosen_layers,
    depth_of,
    keep_layers,
    refuse_other_kinds,
    stacks_of,
    teachers_name,
)
from apt_model.distill.students.widths import set_hidden_size
from apt_model.errors import ConfigError, ModelError, brief
from apt_model.models.generation_settings import inherit_settings
from apt_model.models.quiet import quiet_about_masks
from apt_model.models.text_part import text_part, towers_of

MLP_WIDTHS = ("intermediate_size", "ffn_dim", "n_inner")  # config keys in Llama, OPT and GPT-2

UNBUILDABLE = (ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError, RuntimeError, AssertionError)

Init = Literal["fresh", "teacher"]
Method = Literal["rotate", "channels"]
Rank = Literal["even", "importance", "angle"]
WORDS = {"init": get_args(Init), "method": get_args(Method), "rank": get_args(Rank)}


def create_compressed_model(
    config_or_model: Any,
    *,
    num_layers: int | None = None,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    intermediate_size: int | None = None,
    init: Init = "fresh",
) -> Any:
    """Make a student: the teacher's architecture with fewer layers, a smaller hidden size, or both.

    Heads keep their size if it divides the new hidden size, else their number is the nearest that does; the ratio of
    query to key-value heads is kept, and the MLP shrinks in proportion.

    Args:
        config_or_model: the teacher, or its config.
        num_layers: of the student; None: the teacher's.
        hidden_size: of the student; None: the teacher's.
        num_attention_heads: of the student; None: follows from the hidden size.
        intermediate_size: of the student's MLP; None: follows from the hidden size.
        init: "fresh" weights, as the architecture initialises them, or "teacher": evenly spaced layers of the
            teacher, first and last among them, and its embeddings, norms and head; then only `num_layers` may differ
            (`shrink` cuts the hidden size too, by activations on some text).

    Returns:
        The student, float32, on the CPU, in eval mode, sharing no memory with the teacher, with its
        `generation_config`.

    Raises:
        ModelError: no Hugging Face model or config, sizes that its architecture cannot have, or weights that do not
            fit the student.
        ConfigError: an unknown `init`.
    """
    if init == "teacher" and getattr(config_or_model, "is_quantized", False):
        raise ModelError(
            "a quantized teacher has no weights to copy", fix="use init=fresh, or the teacher before quantization"
        )
    if init not in ("fresh", "teacher"):
        raise ConfigError("init is unknown", got=repr(init), expected="fresh or teacher")
    if isinstance(config_or_model, PreTrainedModel):
        config_or_model, _ = text_part(config_or_model)
    small = _copied_config(config_or_model)
    try:
        layers = chosen_layers(small, num_layers)
        keep_layers(small, layers)
        if any((hidden_size, num_attention_heads, intermediate_size)):
            _cut_width(small, hidden_size, num_attention_heads, intermediate_size)
        small = as_saved(small)
        student = AutoModelForCausalLM.from_config(small, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
        if init == "teacher":
            _copy_weights(config_or_model, student, layers)
        _refuse_towers(student)
        _try_out(student)
    except ModelError:
        raise
    except UNBUILDABLE as error:
        what = f"cannot make a student from this config ({small.model_type})"
        raise ModelError(what, got=" ".join(str(error).split())[:300], fix="try other sizes") from error
    inherit_settings(student, config_or_model)
    return student


def description_of(student: Any) -> dict[str, Any]:
    """Config and dtype of a student, as JSON values: all that `student_without_weights` needs."""
    return {"config": json.loads(student.config.to_json_string(use_diff=False)), "dtype": str(student.dtype)}


def student_without_weights(description: Mapping[str, Any], config_or_model: Any) -> Any:
    """The student of a description, on the meta device; `config_or_model` as for `create_compressed_model`."""
    config = type(_copied_config(config_or_model)).from_dict(description["config"])
    dtype = getattr(torch, description["dtype"].removeprefix("torch."))
    with torch.device("meta"):
        student = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()  # type: ignore[no-untyped-call]
    inherit_settings(student, config_or_model)
    return student


def _copied_config(config_or_model: Any) -> PretrainedConfig:
    """A copy of the text model's config, without quantization."""
    config = getattr(config_or_model, "config", config_or_model)
    if not isinstance(config, PretrainedConfig):
        raise ModelError(
            "cannot make a student of this model", got=type(config).__name__, expected="a Hugging Face model or config"
        )
    try:
        small = deepcopy(config.get_text_config())
    except ValueError as error:  # MusicGen, which has two
        raise ModelError("cannot tell which part of this model reads text", got=config.model_type) from error
    if hasattr(small, "quantization_config"):
        del small.quantization_config
    return small


def parse_student(description: str) -> dict[str, Any] | None:
    """Parse `"layers=6,hidden=384"` into arguments of `create_compressed_model`; None for a path or hub id.

    Keys: layers, hidden, heads, mlp, init; and with init=teacher also method and rank, which are arguments of `shrink`.

    Raises:
        ConfigError: it contains "=", but has an unknown key or a wrong value.
    """
    if "=" not in description:
        return None
    keys = {"layers": "num_layers", "hidden": "hidden_size", "heads": "num_attention_heads", "mlp": "intermediate_size"}
    sizes: dict[str, Any] = {}
    for part in description.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        if value in WORDS.get(key, ()):
            sizes[key] = value
        elif key in keys and _is_size(value):
            sizes[keys[key]] = int(value)
        else:
            words = ", ".join(f"{key}={'|'.join(values)}" for key, values in WORDS.items())
            expected = f"layers=N, hidden=N, heads=N, mlp=N, {words}, a directory or a hub id"
            raise ConfigError(
                "student description has an unknown key or a wrong value", got=brief(part), expected=expected
            )
    if sizes.get("init") != "teacher" and ("method" in sizes or "rank" in sizes):
        raise ConfigError(
            "method and rank need init=teacher",
            got=brief(description),
            fix="add init=teacher",
        )
    return sizes


def _is_size(value: str) -> bool:
    return value.isdecimal() and len(value) < 10 and int(value) >= 1


def looks_at_text(sizes: Mapping[str, Any]) -> bool:
    """Whether a parsed description needs `shrink`, and so some text, rather than `create_compressed_model`."""
    return sizes.get("init") == "teacher" and not sizes.keys() <= {"init", "num_layers"}


def _cut_width(config: Any, hidden_size: int | None, heads: int | None, mlp: int | None) -> None:
    before = config.hidden_size
    hidden_size = hidden_size or before
    if getattr(config, "is_heterogeneous", False) or not hasattr(config, "num_attention_heads"):
        if heads is not None:
            fix = "leave heads out"
            raise ModelError("this architecture has no one number of attention heads", got=config.model_type, fix=fix)
    else:
        _cut_heads(config, hidden_size, heads)
    set_hidden_size(config, hidden_size)
    _cut_mlp(config, mlp, hidden_size, before)


def _cut_heads(config: Any, hidden_size: int, heads: int | None) -> None:
    before, heads_before = config.hidden_size, config.num_attention_heads
    kv_before = getattr(config, "num_key_value_heads", None)
    head_dim = getattr(config, "head_dim", None)
    follows_width = head_dim is None or head_dim * heads_before == before
    heads = heads or _fitting_heads(hidden_size, before, heads_before, any_fits=not follows_width)
    if hidden_size < 1 or (follows_width and hidden_size % heads):
        expected = f"hidden_size in multiples of {heads}"
        raise ModelError(
            "hidden_size does not divide into heads", got=f"{hidden_size}, {heads} heads", expected=expected
        )
    if follows_width and "head_dim" in config.__dict__ and head_dim is not None:
        config.head_dim = hidden_size // heads
    config.num_attention_heads = heads
    if kv_before is not None:
        config.num_key_value_heads = _fitting_groups(heads, heads * kv_before / heads_before)


def _cut_mlp(config: PretrainedConfig, mlp: int | None, hidden_size: int, before: int) -> None:
    """Set the MLP's size, or shrink it as the hidden size was."""
    for name in MLP_WIDTHS:
        width = getattr(config, name, None)
        if mlp and hasattr(config, name):
            setattr(config, name, mlp)
        elif isinstance(width, int):
            setattr(config, name, max(8, round(width * hidden_size / before / 8) * 8))


def _fitting_groups(heads: int, wanted: float) -> int:
    """The largest number of key-value heads, up to `wanted` rounded, that divides the heads."""
    return max(n for n in range(1, max(1, round(wanted)) + 1) if heads % n == 0)


def _fitting_heads(hidden_size: int, before: int, heads: int, *, any_fits: bool) -> int:
    """The number of heads of the teacher's size, if whole; else the nearest number with an even head size."""
    wanted = max(1, heads * hidden_size / before)
    if any_fits or wanted == int(wanted):
        return max(1, round(wanted))
    fitting = [n for n in range(1, hidden_size // 2 + 1) if hidden_size % (2 * n) == 0]
    if not fitting:
        expected = f"an even number, best a multiple of {before // heads}"
        raise ModelError("hidden_size does not divide into heads", got=hidden_size, expected=expected)
    return min(fitting, key=lambda n: abs(n - wanted))


def _refuse_towers(student: PreTrainedModel) -> None:
    """Refuse a student that has towers for images or sound, which no text teaches."""
    towers = towers_of(student)
    if towers:
        kind, got = student.config.model_type, ", ".join(towers)
        fix = "give the student as a saved model, of another architecture"
        raise ModelError(f"a student of {kind} cannot be made without its towers", got=got, fix=fix)


@torch.no_grad()
def _try_out(student: nn.Module) -> None:
    """Run a forward pass over two tokens: sizes that do not work together fail here, not in the first step."""
    with quiet_about_masks():
        student(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False)


@torch.no_grad()
def _copy_weights(teacher: Any, student: PreTrainedModel, layers: tuple[int, ...]) -> None:
    """Fill the student with the teacher's weights, its layer i with the teacher's layer `layers[i]`."""
    if type(teacher) is not type(student):
        got, fix = type(teacher).__name__, "pass the loaded teacher"
        raise ModelError("init='teacher' needs a causal language model to copy from", got=got, fix=fix)
    depth = depth_of(teacher.config)
    stacks = stacks_of(teacher, student, depth, len(layers))
    refuse_other_kinds(teacher, student, stacks, layers)
    weights = teacher.state_dict()
    for name, target in student.state_dict().items():
        found = weights.get(teachers_name(name, stacks, layers))
        found = found if found is None else blocks_of(found, target.shape, depth, layers)
        if found is None or found.shape != target.shape:
            raise ModelError(
                f"the teacher's weights do not fit the student at {name}",
                got=None if found is None else f"{tuple(found.shape)} and {tuple(target.shape)}",
                fix="let only num_layers differ, since init='teacher' copies whole layers, or use apt_model.shrink",
            )
        target.copy_(found)
