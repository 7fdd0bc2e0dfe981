"""LoRA adapters on a student: made from a description, found again, saved alone or merged. Needs `peft`.

Knows models; knows nothing of training. The only file that imports peft, and only where it is used: whether a model has
adapters is seen without it.
"""

from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from apt_model.errors import ConfigError, ModelError

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL_LINEAR = "all-linear"  # peft's name for every linear layer but the output head


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        r: rank of the update of each layer.
        alpha: the update is scaled by alpha / r.
        target: names of the layers that get one, or "all-linear".
        dropout: of what enters an adapter.
    """

    r: int = 8
    alpha: float = 16
    target: str | tuple[str, ...] = ALL_LINEAR
    dropout: float = 0.0


def parse_lora(description: str) -> Lora:
    """`"r=8,alpha=16,target=q_proj+v_proj,dropout=0.05"`; what is not named is as in `Lora`.

    Raises:
        ConfigError: a key or value is wrong.
    """
    values: dict[str, Any] = {}
    for part in filter(None, description.split(",")):
        key, _, value = (word.strip() for word in part.partition("="))
        if key == "r" and value.isdecimal() and int(value) >= 1:
            values["r"] = int(value)
        elif key == "alpha" and _number(value) > 0:
            values["alpha"] = _number(value)
        elif key == "dropout" and 0 <= _number(value) < 1:
            values["dropout"] = _number(value)
        elif key == "target" and value:
            values["target"] = value if value == ALL_LINEAR else tuple(value.split("+"))
        else:
            expected = "r=N,alpha=X,target=all-linear (or names joined by +),dropout=X"
            raise ConfigError("lora is not understood", got=repr(part), expected=expected)
    return Lora(**values)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return -1.0


def add_lora(student: nn.Module, lora: Lora, *, base: str | Path | None = None) -> Any:
    """The student with adapters, which alone are trained; its own weights are frozen and not copied.

    Args:
        student: a model of transformers.
        lora: which adapters.
        base: where the student can be loaded from, to be named in what is saved.

    Raises:
        ConfigError: no peft. ModelError: another kind of model, or layers that it does not have.
    """
    _require_peft()
    from peft import LoraConfig, get_peft_model

    if not isinstance(student, PreTrainedModel):
        raise ModelError("adapters need a model of transformers", got=type(student).__name__)
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
        raise ModelError("adapters do not fit the student", got=str(error).split("\n")[0][:300]) from error
    if base is not None:
        place = Path(base)
        adapted.peft_config["default"].base_model_name_or_path = str(place.resolve() if place.exists() else base)
    return adapted.eval()


def has_adapters(model: Any) -> bool:
    """Whether a model is one of peft's."""
    return isinstance(getattr(model, "peft_config", None), dict) and not isinstance(model, PreTrainedModel)


def merged(model: Any) -> Any:
    """A copy of an adapted model whose adapters are part of its weights: a plain model of transformers."""
    return deepcopy(model).merge_and_unload()


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What is trained of an adapted model, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Everything else of it."""
    trained = adapter_tensors(model)
    return {name: tensor for name, tensor in model.state_dict(keep_vars=False).items() if name not in trained}


def fill_adapters(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put what `adapter_tensors` gave back in its place.

    Raises:
        ValueError: other names or shapes.
    """
    own = adapter_tensors(model)
    if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        raise ValueError(f"adapters of {len(tensors)} tensors do not fit the student's {len(own)}")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def base_of(directory: Path) -> str:
    """Where the model is that saved adapters belong to.

    Raises:
        ConfigError: no peft. ModelError: it is not said, or the adapters are no safetensors.
    """
    _require_peft()
    from peft import PeftConfig

    if not (directory / ADAPTER_WEIGHTS).exists():
        raise ModelError(f"adapters in {directory} have no weights", expected=ADAPTER_WEIGHTS)
    try:
        base = PeftConfig.from_pretrained(str(directory)).base_model_name_or_path
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"adapters in {directory} cannot be read", got=str(error).split("\n")[0][:300]) from error
    if not base:
        fix = f"name it as base_model_name_or_path in {ADAPTER_CONFIG}"
        raise ModelError(f"adapters in {directory} do not say which model they belong to", fix=fix)
    return str(base)


def attach(model: Any, directory: Path) -> Any:
    """A model with the adapters that were saved for it, to be used and not trained."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(directory)).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"adapters in {directory} do not fit", got=str(error).split("\n")[0][:300]) from error


def _require_peft() -> None:
    if find_spec("peft") is None:
        raise ConfigError("adapters need the peft package", fix="pip install 'apt-model[lora]'")
