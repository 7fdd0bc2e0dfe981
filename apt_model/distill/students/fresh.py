"""A student from a shrunken config of the teacher: fresh weights, or copied layers. Parse `--student` descriptions.

Knows configs; knows nothing of activations or training.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from apt_model.distill.students.widths import set_hidden_size
from apt_model.errors import ConfigError, ModelError, brief
from apt_model.models.generation_settings import inherit_settings

MLP_WIDTHS = ("intermediate_size", "ffn_dim", "n_inner")  # config keys in Llama, OPT and GPT-2
PER_LAYER = ("layer_types", "no_rope_layers")  # config keys whose value is a list with an entry for each layer

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
    small = _copied_config(config_or_model)
    try:
        layers = even_layers(small.num_hidden_layers, num_layers)
        keep_layers(small, layers)
        _cut_width(small, hidden_size, num_attention_heads, intermediate_size)
        student = AutoModelForCausalLM.from_config(small, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
        _try_out(student)
    except ModelError:
        raise
    except (ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise ModelError(
            "cannot make a student from this config", got=str(error).strip().split("\n")[0][:300]
        ) from error
    if init == "teacher":
        _copy_weights(config_or_model, student, layers)
    inherit_settings(student, config_or_model)
    return student


def _copied_config(config_or_model: Any) -> PretrainedConfig:
    """A copy of the text model's config, without quantization."""
    config = getattr(config_or_model, "config", config_or_model)
    if not isinstance(config, PretrainedConfig):
        raise ModelError(
            "cannot make a student of this model", got=type(config).__name__, expected="a Hugging Face model or config"
        )
    small = deepcopy(config.get_text_config())
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


def even_layers(before: int, num_layers: int | None) -> tuple[int, ...]:
    """Indices of `num_layers` out of `before` layers, evenly spaced, first and last among them; None: all.

    Raises:
        ModelError: more layers than there are, or none.
    """
    num_layers = before if num_layers is None else num_layers
    if not 1 <= num_layers <= before:
        raise ModelError("num_layers does not fit the teacher", got=num_layers, expected=f"1 to {before}")
    return tuple(round(i * (before - 1) / max(num_layers - 1, 1)) for i in range(num_layers))


def keep_layers(config: PretrainedConfig, layers: tuple[int, ...]) -> None:
    """Write into a config that only these layers are left."""
    config.num_hidden_layers = len(layers)
    for name in PER_LAYER:
        kinds = getattr(config, name, None)
        if kinds:
            setattr(config, name, [kinds[i] for i in layers])


def _cut_width(config: PretrainedConfig, hidden_size: int | None, heads: int | None, mlp: int | None) -> None:
    before, heads_before = config.hidden_size, config.num_attention_heads
    kv_before = getattr(config, "num_key_value_heads", None)
    head_dim = getattr(config, "head_dim", None)
    hidden_size = before if hidden_size is None else hidden_size
    follows_width = head_dim is None or head_dim * heads_before == before
    heads = heads or _fitting_heads(hidden_size, before, heads_before, any_fits=not follows_width)
    if hidden_size < 1 or (follows_width and hidden_size % heads):
        expected = f"hidden_size in multiples of {heads}"
        raise ModelError(
            "hidden_size does not divide into heads", got=f"{hidden_size}, {heads} heads", expected=expected
        )
    if head_dim is not None and follows_width:
        config.head_dim = hidden_size // heads
    set_hidden_size(config, hidden_size)
    config.num_attention_heads = heads
    if kv_before is not None:
        config.num_key_value_heads = _fitting_groups(heads, heads * kv_before / heads_before)
    _cut_mlp(config, mlp, hidden_size, before)


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


@torch.no_grad()
def _try_out(student: nn.Module) -> None:
    """Run a forward pass over two tokens: sizes that do not work together fail here, not in the first step."""
    student(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False)


def teachers_name(name: str, stack: str, layers: Sequence[int]) -> str:
    """The teacher's name of a student's weight: layer i of `stack` becomes layer `layers[i]`."""
    if not name.startswith(f"{stack}."):
        return name
    layer, _, rest = name.removeprefix(f"{stack}.").partition(".")
    return f"{stack}.{layers[int(layer)]}.{rest}"


def _copy_weights(teacher: Any, student: PreTrainedModel, layers: tuple[int, ...]) -> None:
    """Fill the student with the teacher's weights, its layer i with the teacher's layer `layers[i]`."""
    if type(teacher) is not type(student):
        got, fix = type(teacher).__name__, "pass the loaded teacher"
        raise ModelError("init='teacher' needs a causal language model to copy from", got=got, fix=fix)
    stack = next(n for n, m in teacher.named_modules() if isinstance(m, nn.ModuleList) and len(m) > max(layers))
    weights = teacher.state_dict()
    for name, target in student.state_dict().items():
        found = weights.get(teachers_name(name, stack, layers))
        if found is None or found.shape != target.shape:
            raise ModelError(
                f"the teacher's weights do not fit the student at {name}",
                got=None if found is None else f"{tuple(found.shape)} and {tuple(target.shape)}",
                fix="let only num_layers differ, since init='teacher' copies whole layers, or use apt_model.shrink",
            )
        target.copy_(found)
