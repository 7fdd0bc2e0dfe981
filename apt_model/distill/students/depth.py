"""The layers that a config speaks of: how many, of which kinds; a config of fewer; the layers in a model's weights.

Knows configs and names of weights; knows nothing of widths, activations or of which layers are worth keeping.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from apt_model.errors import ModelError

DEPTHS = ("num_layers_per_stack", "decoder_layers", "num_decoder_layers", "num_layers", "num_hidden_layers")
INDICES = {  # config keys whose value is a list of layers, and the number of the first layer there
    "mlp_only_layers": 0, "moe_layers": 0, "full_attn_idxs": 0, "hybrid_layer_ids": 0, "attn_layer_indices": 0,
    "ple_layer_ids": 1,
}  # fmt: skip
BOUNDS = (  # config keys whose value is the number of a layer: what is said of the layers before it holds no further
    "first_k_dense_replace", "num_dense_layers", "max_window_layers", "moe_layer_start_index", "n_input_layers",
    "loop_layer_index_start", "loop_layer_index_end",
)  # fmt: skip
LAST = ("num_kv_shared_layers", "n_output_layers")  # config keys whose value counts layers at the end
PERIODS = ("attn_layer", "expert_layer")  # config keys `.._period` and `.._offset`: every n-th layer, from that one on
NO_LIST_OF_LAYERS = ("architectures", "bos_token_id", "eos_token_id", "pad_token_id")
PLACES = {  # attributes of a module that say where it stands, and not how it is made
    "layer_idx", "layer_id", "layer_index", "layer_number", "block_idx", "training",
    "num_hidden_layers", "num_fwd_mem_blocks", "store_full_length_kv", "seed",
}  # fmt: skip


def depth_of(config: Any) -> int:
    """The number of layers.

    Raises:
        ModelError: the config does not tell.
    """
    return int(getattr(config, _depth_key(config)))


def _depth_key(config: Any) -> str:
    for name in DEPTHS:
        if isinstance(getattr(config, name, None), int):
            return name
    kind = getattr(config, "model_type", type(config).__name__)
    raise ModelError(
        "a student of fewer layers cannot be made of this architecture, whose config names no number of layers",
        got=kind,
        fix="give the student as a saved model, or take another teacher",
    )


def even_layers(before: int, num_layers: int | None) -> tuple[int, ...]:
    """Indices of `num_layers` out of `before` layers, evenly spaced, first and last among them; None: all.

    Raises:
        ModelError: more layers than there are, or none.
    """
    num_layers = before if num_layers is None else num_layers
    if not 1 <= num_layers <= before:
        raise ModelError("num_layers does not fit the teacher", got=num_layers, expected=f"1 to {before}")
    return tuple(round(i * (before - 1) / max(num_layers - 1, 1)) for i in range(num_layers))


def chosen_layers(config: Any, num_layers: int | None) -> tuple[int, ...]:
    """`even_layers` of a config. Of a model that mixes attention with other layers, at least one with attention.

    Transformers cannot let such a model generate without one: its cache counts the tokens there. If none of the even
    layers has attention, the last of them gives way to the next that has.

    Raises:
        ModelError: as in `even_layers`.
    """
    depth = depth_of(config)
    layers = even_layers(depth, num_layers)
    kinds = getattr(config, "layer_types", None) or ()
    attending = [at for at, kind in enumerate(kinds[:depth]) if _attends(kind)]
    if not attending or set(attending) & set(layers):
        return layers
    rest = layers[:-1]
    return tuple(sorted([*rest, min(attending, key=lambda at: abs(at - layers[-1]))]))


def _attends(kind: Any) -> bool:
    return isinstance(kind, str) and kind != "linear_attention" and ("attention" in kind or "hybrid" in kind)


def keep_layers(config: Any, layers: Sequence[int]) -> None:
    """Write into a config that only these layers are left, given by rising indices.

    Whatever it says of single layers, by a list, an index, a count or a period, follows them.

    Raises:
        ModelError: it names no number of layers.
    """
    depth = depth_of(config)
    if len(layers) < depth:
        _shorten(config, depth, layers)


def as_saved(config: Any) -> Any:
    """A changed config as it is read again once a student is saved with it: transformers' own checks have seen it.

    Raises:
        ModelError: the architecture has no model of these sizes.
    """
    try:
        read = type(config).from_dict(config.to_dict())
    except (ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError, StrictDataclassError) as error:
        what = f"cannot make a student from this config ({config.model_type})"
        got = " ".join(str(error).split())[-300:]
        raise ModelError(what, got=got, fix="try other sizes, such as another number of layers") from error
    read._attn_implementation = config._attn_implementation
    return read


def _shorten(config: Any, depth: int, layers: Sequence[int]) -> None:
    changes: dict[str, Any] = {}
    kinds = {name: list(value) for name, value in _lists_of_layers(config, depth)}
    changes |= {name: [value[at] for at in layers] for name, value in kinds.items()}
    for name, first in INDICES.items():
        if isinstance(marked := getattr(config, name, None), list | tuple):
            changes[name] = [new + first for new, at in enumerate(layers) if at + first in marked]
    for name in BOUNDS:
        if isinstance(bound := getattr(config, name, None), int):
            changes[name] = sum(at < bound for at in layers)
    for name in LAST:
        if isinstance(count := getattr(config, name, None), int):
            changes[name] = sum(at >= depth - count for at in layers)
    changes |= _others(config, depth, layers)
    apart = _apart(config, layers)
    for name, value in changes.items():
        setattr(config, name, value)
    key = _depth_key(config)
    setattr(config, key, len(layers))
    if key == "num_layers_per_stack":  # HRM goes through its layers again and again
        config.num_hidden_layers = config.num_hidden_layers // depth * len(layers)
    for name in ("encoder_layers", "num_blocks"):  # BART's decoder and xLSTM make a cache for as many
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, len(layers))
    if apart is not None:
        config.per_layer_config = apart


def _lists_of_layers(config: Any, depth: int) -> list[tuple[str, Sequence[Any]]]:
    """(key, value) of each list that can be set and has an entry for each layer, whatever its name.

    A list of another length by default, such as Mamba's `time_step_limit`, only happens to be that long.
    """
    try:
        default = type(config)()
        usual = depth_of(default)
    except (ValueError, TypeError, KeyError, AttributeError, ModelError):
        default, usual = None, 0
    found: list[tuple[str, Sequence[Any]]] = []
    for name, value in config.__dict__.items():
        if name in NO_LIST_OF_LAYERS or name in INDICES or not isinstance(value, list | tuple) or len(value) != depth:
            continue
        before = getattr(default, name, None)
        if not isinstance(before, list | tuple) or len(before) == usual:
            found.append((name, value))
    return found


def _others(config: Any, depth: int, layers: Sequence[int]) -> dict[str, Any]:
    """What single families say of their layers in a way of their own."""
    changes: dict[str, Any] = {}
    if isinstance(end := getattr(config, "moe_layer_end_index", None), int):  # Ernie: the last one with experts
        changes["moe_layer_end_index"] = sum(at <= (end if end >= 0 else depth - 1) for at in layers) - 1
    if isinstance(count := getattr(config, "n_recurrent_layers", None), int):  # Dory: those between its other two
        first = getattr(config, "n_input_layers", 0)
        changes["n_recurrent_layers"] = sum(first <= at < first + count for at in layers)
    if isinstance(getattr(config, "block_types", None), list | tuple):  # RecurrentGemma: repeated over the layers
        cycle = list(config.block_types)
        changes["block_types"] = [cycle[at % len(cycle)] for at in layers]
    if isinstance(nested := getattr(config, "attention_types", None), list) and hasattr(config, "attention_layers"):
        kinds = config.expand_attention_types_params(nested)  # GPT-Neo: runs of kinds
        changes["attention_types"] = [[[kinds[at]], 1] for at in layers]
        changes["attention_layers"] = [kinds[at] for at in layers]
    if isinstance(scale := getattr(config, "scale_depth", None), int | float):  # MiniCPM: over the root of the depth
        changes["scale_depth"] = scale * (len(layers) / depth) ** 0.5
    step = getattr(config, "decoder_sparse_step", None)
    if isinstance(step, int) and step > 1 and hasattr(config, "mlp_only_layers"):  # Qwen's experts
        dense = {*(config.mlp_only_layers or ()), *(at for at in range(depth) if (at + 1) % step)}
        changes["mlp_only_layers"] = [new for new, at in enumerate(layers) if at in dense]
        changes["decoder_sparse_step"] = 1
    for name in PERIODS:
        changes |= _period(config, name, layers)
    return changes


def _period(config: Any, name: str, layers: Sequence[int]) -> dict[str, int]:
    """The period and offset that mark the same layers; none if no period does."""
    period, offset = (getattr(config, f"{name}_{word}", None) for word in ("period", "offset"))
    if not isinstance(period, int) or not isinstance(offset, int):
        return {}
    wanted = [at % period == offset for at in layers]
    for every in range(1, len(layers) + 2):
        for first in range(every):
            if [at % every == first for at in range(len(layers))] == wanted:
                return {f"{name}_period": every, f"{name}_offset": first}
    return {}


def _apart(config: Any, layers: Sequence[int]) -> dict[int, Any] | None:
    """Settings of single layers (`per_layer_config`, as in Gemma 4) of those that are kept; None: there are none."""
    given = config.to_dict().get("per_layer_config") if getattr(config, "is_heterogeneous", False) else None
    if given is None:
        return None
    by_layer = {int(at): values for at, values in given.items()}
    config.per_layer_config = None
    return {new: by_layer[at] for new, at in enumerate(layers) if at in by_layer}


def stacks_of(teacher: nn.Module, student: nn.Module, depth: int, kept: int) -> tuple[str, ...]:
    """Names of the lists of layers that are `depth` long in the teacher and `kept` long in the student."""
    if depth == kept:
        return ()
    theirs, mine = (
        {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
        for model in (teacher, student)
    )
    return tuple(name for name, size in theirs.items() if size == depth and mine.get(name) == kept)


def teachers_name(name: str, stacks: Collection[str], layers: Sequence[int]) -> str:
    """The teacher's name of a part of the student: layer i of a stack becomes layer `layers[i]`."""
    for stack in stacks:
        if name.startswith(f"{stack}."):
            layer, dot, rest = name.removeprefix(f"{stack}.").partition(".")
            return f"{stack}.{layers[int(layer)]}{dot}{rest}"
    return name


def blocks_of(weight: Tensor, shape: Sequence[int], depth: int, layers: Sequence[int]) -> Tensor:
    """The part of a weight that has a block for each layer, one after the other (Gemma 4's `embed_tokens_per_layer`).

    Another weight is returned as it is; its shape may not be `shape`.
    """
    apart = [at for at, (theirs, mine) in enumerate(zip(weight.shape, shape, strict=False)) if theirs != mine]
    if len(apart) != 1 or weight.ndim != len(shape) or weight.shape[apart[0]] * len(layers) != shape[apart[0]] * depth:
        return weight
    at, shape = apart[0], list(shape)
    blocks = weight.reshape([*shape[:at], depth, weight.shape[at] // depth, *shape[at + 1 :]])
    return blocks.index_select(at, torch.tensor(layers, device=weight.device)).reshape(shape)


def refuse_other_kinds(teacher: nn.Module, student: nn.Module, stacks: Collection[str], layers: Sequence[int]) -> None:
    """Refuse a student whose layers are not made as those of the teacher whose weights they are to get.

    Compared are the modules in the stacks by their classes, numbers, words and buffers: kinds of attention, windows,
    scales that follow from a layer's place.

    Raises:
        ModelError: they differ.
    """
    theirs, copied = dict(teacher.named_modules()), student.state_dict().keys()
    for name, mine in student.named_modules():
        source_name = teachers_name(name, stacks, layers)
        source = theirs.get(source_name)
        if source_name == name and not name.startswith(tuple(f"{stack}." for stack in stacks)):
            continue
        anew = {part for part, _ in mine.named_buffers(recurse=False) if f"{name}.{part}" not in copied}
        is_other = source is None or type(source) is not type(mine)
        differing = ["its class"] if is_other else _differing(_makeup(mine, anew), _makeup(source, anew))
        if differing:
            raise ModelError(
                "the teacher's layers depend on their place, so those of a shorter student are of another make",
                got=f"{name} in place of the teacher's {source_name}, which differs in {', '.join(differing)}",
                fix="try another number of layers, or init=fresh",
            )


def _differing(made: dict[str, Any], meant: dict[str, Any]) -> list[str]:
    return [key for key in sorted(made.keys() | meant.keys()) if not _equal(made.get(key), meant.get(key))]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.cpu(), other.cpu())
    return bool(one == other)


def _makeup(module: Any, anew: Collection[str]) -> dict[str, Any]:
    """What a module is made of besides weights: numbers, words, and the buffers that are computed anew."""
    plain = {k: v for k, v in vars(module).items() if k not in PLACES and not k.startswith("_") and _is_plain(v)}
    return plain | {k: v for k, v in module.named_buffers(recurse=False) if k in anew}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
