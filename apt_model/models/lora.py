"""LoRA adapters: parse their description, add them to a student, save and load them, merge them. Needs `peft`.

Knows models; knows nothing of training. The only file that imports peft, inside the functions that need it:
`has_adapters` works without it.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from apt_model.errors import ConfigError, ModelError, StorageError, brief, reason_of
from apt_model.models.directory import damaged, read_object, values_of
from apt_model.models.quiet import quiet_peft
from apt_model.models.reading import reading
from apt_model.models.stored_tensors import shapes_in

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL_LINEAR = "all-linear"  # peft's name for every linear layer but the output head


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        r: rank of each layer's weight update.
        alpha: the update is scaled by alpha / r.
        target: names of the layers that get an adapter, or "all-linear".
        dropout: probability on an adapter's input.
    """

    r: int = 8
    alpha: float = 16
    target: str | tuple[str, ...] = ALL_LINEAR
    dropout: float = 0.0


def parse_lora(description: str) -> Lora:
    """Parse `"r=8,alpha=16,target=q_proj+v_proj,dropout=0.05"`; a key that is left out has the default of `Lora`.

    Raises:
        ConfigError: an unknown key, or a value out of its range.
    """
    values: dict[str, Any] = {}
    for part in filter(None, description.split(",")):
        key, _, value = (word.strip() for word in part.partition("="))
        values[key] = _READERS[key](value) if key in _READERS else None
        if values[key] is None:
            expected = "r=N,alpha=X,target=all-linear (or names joined by +),dropout=X"
            raise ConfigError("lora description has an unknown key or a wrong value", got=repr(part), expected=expected)
    return Lora(**values)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return -1.0


_READERS: Mapping[str, Callable[[str], Any]] = {  # of the keys; None if the value is out of range
    "r": lambda text: int(text) if text.isdecimal() and int(text) >= 1 else None,
    "alpha": lambda text: number if (number := _number(text)) > 0 else None,
    "dropout": lambda text: number if 0 <= (number := _number(text)) < 1 else None,
    "target": lambda text: text if text == ALL_LINEAR else tuple(text.split("+")) if text else None,
}


@quiet_peft()
def add_lora(student: nn.Module, lora: Lora, *, base: str | Path | None = None) -> Any:
    """Wrap a student in a PEFT model whose adapters alone are trained; its weights are frozen, and not copied.

    Args:
        student: a model of transformers.
        lora: rank, scale, target layers and dropout.
        base: path or hub id of the student, written into the saved adapters' config.

    Raises:
        ConfigError: peft is not installed. ModelError: no model of transformers, or it lacks the target layers.
    """
    _require_peft()
    from peft import LoraConfig, get_peft_model

    if not isinstance(student, PreTrainedModel):
        raise ModelError("LoRA adapters need a model of transformers", got=type(student).__name__)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.target if isinstance(lora.target, str) else list(lora.target),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(student, config)
    except ValueError as error:
        raise ModelError("LoRA adapters do not fit the student", got=reason_of(error)) from error
    if base is not None:
        place = Path(base)
        adapted.peft_config["default"].base_model_name_or_path = str(place.resolve() if place.exists() else base)
    return adapted.eval()


def has_adapters(model: Any) -> bool:
    """Whether a model is a PEFT model."""
    return isinstance(getattr(model, "peft_config", None), dict) and not isinstance(model, PreTrainedModel)


@quiet_peft()
def merged(model: Any) -> Any:
    """A copy of a PEFT model with its adapters merged into the weights: a plain model of transformers.

    Where one of two tied matrices, head and embeddings, was adapted, or both by adapters of their own, they are two in
    the copy, and its config says so: merged into one they would both change.
    """
    copied = deepcopy(model)
    base = copied.get_base_model()
    head, embeddings = base.get_output_embeddings(), base.get_input_embeddings()
    if head is not None and _plain(head).weight is _plain(embeddings).weight and _is_adapted(head, embeddings):
        _plain(head).weight = nn.Parameter(_plain(head).weight.detach().clone(), requires_grad=False)
    plain = copied.merge_and_unload()
    head, embeddings = plain.get_output_embeddings(), plain.get_input_embeddings()
    if head is not None and head.weight is not embeddings.weight:
        for config in (plain.config, plain.config.get_text_config()):
            config.tie_word_embeddings = False
    return plain


def _plain(layer: Any) -> Any:
    """The layer within peft's, whether adapted or kept as a trained copy."""
    inner = getattr(layer, "base_layer", None) or getattr(layer, "original_module", None)
    return layer if inner is None else _plain(inner)


def _is_adapted(*layers: Any) -> bool:
    return any(_plain(layer) is not layer for layer in layers)


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The trainable tensors of a PEFT model, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The frozen parameters and the buffers of a PEFT model, by name."""
    trained = adapter_tensors(model)
    return {name: tensor for name, tensor in model.state_dict(keep_vars=False).items() if name not in trained}


def fill_adapters(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors of `adapter_tensors` into a model's adapters.

    Raises:
        ValueError: names or shapes differ.
    """
    present = adapter_tensors(model)
    if present.keys() != tensors.keys() or any(present[name].shape != tensors[name].shape for name in present):
        raise ValueError(f"{len(tensors)} adapter tensors do not fit the {len(present)} of the student")
    for name, tensor in present.items():
        tensor.copy_(tensors[name])


def refuse_other_adapters(model: Any) -> None:
    """Refuse a PEFT model of which only a part would be loaded again: what is loaded is the adapter named "default".

    Raises:
        ModelError: it has several adapters, or one of another name.
    """
    names = list(model.peft_config)
    if names != ["default"]:
        fix = 'keep one, under the name "default": delete the others, or merge them'
        raise ModelError("the student's adapters would not all be loaded again", got=", ".join(names), fix=fix)


def keep_one_kind(directory: Path, model: nn.Module, *, merges: bool) -> None:
    """Before a model is saved: no directory holds a whole model and adapters, which transformers would load as one.

    Raises:
        StorageError: adapters, and a whole model stands there.
        ModelError: the adapters would not be loaded again.
    """
    if not has_adapters(model) or merges:
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            (directory / name).unlink(missing_ok=True)
        return
    refuse_other_adapters(model)
    if (directory / "config.json").exists():
        fix = "save the adapters to another directory, or merge them"
        raise StorageError(f"{directory} holds a whole model, and adapters beside it would not be loaded", fix=fix)


def base_of(directory: Path) -> str:
    """Path or hub id of the base model that saved adapters belong to.

    Raises:
        ConfigError: peft is not installed. ModelError: their config names no base model, cannot be read, or asks for
            code or for larger adapters than are stored; there are no safetensors, or damaged ones.
    """
    _require_peft()
    if not (directory / ADAPTER_WEIGHTS).exists():
        raise ModelError(f"adapters in {directory} have no weights", expected=ADAPTER_WEIGHTS)
    settings = read_object(directory / ADAPTER_CONFIG, str(directory))
    if settings.get("megatron_config") is not None:  # peft would import what megatron_core names
        raise damaged(str(directory), ADAPTER_CONFIG, "megatron_config", "adapters without it")
    stored = shapes_in(directory, [ADAPTER_WEIGHTS])
    largest = max((size for shape in stored.values() for size in shape), default=0)
    for key, value in values_of(settings):
        is_rank = key == "r" or key.startswith("rank_pattern.")
        if is_rank and isinstance(value, int) and value > largest:
            expected = f"at most {largest}, the largest size in {ADAPTER_WEIGHTS}"
            raise damaged(str(directory), ADAPTER_CONFIG, f"{key}={brief(value)}", expected)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        fix = f"write it into {ADAPTER_CONFIG} as base_model_name_or_path"
        raise ModelError(f"adapters in {directory} do not name their base model", fix=fix)
    return base


@quiet_peft()
def attach(model: Any, directory: Path) -> Any:
    """Load saved adapters onto their base model, in eval mode and not trainable.

    Raises:
        ModelError: they do not fit it.
    """
    from peft import PeftModel

    with reading(directory, f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"):
        return PeftModel.from_pretrained(model, str(directory)).eval()


def _require_peft() -> None:
    if find_spec("peft") is None:
        raise ConfigError("LoRA adapters need the peft package", fix="pip install 'apt-model[lora]'")
