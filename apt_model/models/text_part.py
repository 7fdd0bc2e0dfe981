"""The text part of a model that also takes images or sound, as a causal language model without its towers.

Knows how transformers builds such models; knows nothing of files, or of who is teacher and student.
"""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)

from apt_model.errors import ModelError

MEDIA = ("vision", "image", "visual", "audio", "speech", "video", "vq", "code")  # in the names of towers' configs


UNTAUGHT = {  # kinds of models that transformers lists as causal, and why no text can be taught with them
    "reformer": "in training it reads rows of one length alone, its axial positions' product",
    "gemma4_assistant": "it reads keys and values of another model",
    "gemma4_unified_assistant": "it reads keys and values of another model",
}


def refuse_untaught(config: Any) -> None:
    """Refuse a model that needs more than token ids, by the config that is stored with it.

    Raises:
        ModelError: it does.
    """
    kind = getattr(config, "model_type", None)
    if kind in UNTAUGHT:
        fix = "take another model"
        raise ModelError(f"a {kind} model cannot be taught or teach: {UNTAUGHT[kind]}", got=kind, fix=fix)


def left_out_of(stored: Any, model: Any) -> tuple[str, ...]:
    """What a stored config has besides text that transformers left out when it loaded the model, such as Llama 4."""
    if stored is None or type(model.config) is type(stored) or not isinstance(stored, PretrainedConfig):
        return ()
    return tuple(name for name in stored.sub_configs if getattr(stored, name, None) is not stored.get_text_config())


def loader_of(config: Any) -> Any:
    """The auto class that loads a model with this config: for text, else one for text with images or sound."""
    if config is None:
        return AutoModelForCausalLM
    if (
        type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
        and type(config.get_text_config()) in MODEL_FOR_CAUSAL_LM_MAPPING
    ):
        if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return AutoModelForImageTextToText
        if type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING:
            return AutoModelForMultimodalLM
    return AutoModelForCausalLM


def towers_of(model: nn.Module) -> tuple[str, ...]:
    """Names of the models of images or sound within a model that is of one piece with them (Phi-4 multimodal, GIT)."""
    parts = [(name, part) for name, part in model.named_modules() if name and isinstance(part, PreTrainedModel)]
    found, own = list[str](), type(getattr(model, "config", None))
    for name, part in parts:
        kind = type(part.config)
        is_medium = kind is not own and any(word in kind.__name__.lower() for word in MEDIA)
        if is_medium and not name.startswith(tuple(f"{one}." for one in found)):
            found.append(name)
    return tuple(found)


def text_part(model: Any) -> tuple[Any, tuple[str, ...]]:
    """A model without its towers, and the names of the parts left out; the model as it is if it has no part for text.

    It shares the modules of the model that was given.

    Raises:
        ModelError: transformers has no causal language model of that part's kind.
    """
    config = getattr(model, "config", None)
    text: Any = config.get_text_config() if isinstance(config, PretrainedConfig) else config
    if text is config:
        return model, ()
    inner, head = model.get_decoder(), model.get_output_embeddings()
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING or head is None:
        raise _no_text_part(model, text)
    with torch.device("meta"):
        alone: Any = AutoModelForCausalLM.from_config(text, dtype=model.dtype)  # type: ignore[no-untyped-call]
    if type(alone.base_model) is not type(inner) or type(alone.get_output_embeddings()) is not type(head):
        raise _no_text_part(model, text)
    setattr(alone, alone.base_model_prefix, inner)
    alone.set_output_embeddings(head)
    alone.config, alone.generation_config = inner.config, model.generation_config
    alone.config.tie_word_embeddings = head.weight is inner.get_input_embeddings().weight
    if any(tensor.is_meta for tensor in (*alone.parameters(), *alone.buffers())):
        raise _no_text_part(model, text)
    kept = {id(module) for module in alone.modules()}
    parts = [name for name, module in model.base_model.named_children() if id(module) not in kept]
    return alone.train(model.training), tuple(parts)


def _no_text_part(model: Any, text: Any) -> ModelError:
    return ModelError(
        "a model for images or sound cannot be taught, and its text part has no causal language model of its own",
        got=f"{type(model).__name__}, whose text part is {text.model_type}",
        fix="take a model of text alone of that family",
    )
