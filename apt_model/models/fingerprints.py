"""Hashes that identify a model's weights and config, a tokenizer's vocabulary, and rows of data.

Knows what makes two of them equal; knows nothing of caches, losses or lessons.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.models.sharding import class_of, whole

KEY_BYTES = 16
_NOT_HASHED = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def hash_model(model: nn.Module) -> str:
    """sha256 over a model's weights and its config, if it has one; the path it was loaded from does not count."""
    return hash_tensors(_State(model), hash_config(getattr(model, "config", None)))


def hash_weights(model: nn.Module) -> str:
    """sha256 over a model's weights, as `hash_tensors`."""
    return hash_tensors(_State(model))


class _State(Mapping[str, Tensor]):
    """A model's `state_dict`; what accelerate keeps on a disk is read when it is asked for, one tensor at a time."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._state = model, model.state_dict()

    def __getitem__(self, name: str) -> Tensor:
        found: Tensor = self._state[name]
        if not isinstance(found, Tensor) or not found.is_meta:
            return found
        place, _, own = name.rpartition(".")
        module = self._model.get_submodule(place)
        with align_module_device(module, torch.device("cpu")):
            there: Tensor = getattr(module, own)
            return there.detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def hash_tensors(tensors: Mapping[str, Tensor], before: str = "") -> str:
    """sha256 over the string `before` and the tensors: names, dtypes, shapes, bytes; what is no tensor is left out.

    Of sharded tensors all processes must call it: each is gathered, one after the other.
    """
    digest = hashlib.sha256(before.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(whole(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_config(config: Any) -> str:
    """sha256 over a Hugging Face config without `_NOT_HASHED`; anything else hashes as an empty config."""
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    return hash_json({key: value for key, value in values.items() if key not in _NOT_HASHED})


def hash_tokenizer(tokenizer: Any) -> str | None:
    """sha256 over the vocabulary, token to id; None without a tokenizer."""
    return None if tokenizer is None else hash_json(tokenizer.get_vocab())


def hash_build(model: nn.Module) -> str:
    """sha256 over how a model computes, weights aside.

    Config, classes of modules and what they say of themselves, their floats (dropout, scaling) and strings, and which
    parameters are trained and in which dtype.
    """
    modules = [
        (name, class_of(module).__qualname__, module.extra_repr(), sorted(_settings_of(vars(module)).items()))
        for name, module in model.named_modules()
    ]
    parameters = [(name, str(one.dtype), one.requires_grad) for name, one in model.named_parameters()]
    config = getattr(model, "config", None)
    known = [hash_config(config), getattr(config, "_attn_implementation", None), modules, parameters]
    return hash_json(known)


def _settings_of(values: Mapping[str, Any]) -> dict[str, float | str]:
    """The floats and strings among values, and those in mappings of floats, such as the scaling of each adapter."""
    flat = {key: one for key, one in values.items() if isinstance(one, float | str) and key != "name_or_path"}
    for name, value in values.items():
        if isinstance(value, dict) and value and all(isinstance(one, float) for one in value.values()):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
    return flat


def hash_tokenization(tokenizer: Any) -> str | None:
    """sha256 over all that decides which ids a text or chat becomes; None for what has no vocabulary to ask for."""
    if not hasattr(tokenizer, "get_vocab"):
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    state = ("padding", "truncation")  # of the latest call
    template, special = (getattr(tokenizer, name, None) for name in ("chat_template", "special_tokens_map"))
    return hash_json([{key: value for key, value in rules.items() if key not in state}, template, special])


def hash_json(value: Any) -> str:
    """sha256 over a value as JSON with sorted keys; what is no JSON value counts by its `str()`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_worded).encode()).hexdigest()


def _worded(value: Any) -> str:
    """An object in words; by its type where the words hold an address, which is another in each process."""
    words = str(value)
    return type(value).__qualname__ if " at 0x" in words else words


def text_keys(batch: Batch) -> list[bytes]:
    """A 16-byte BLAKE2b key for each text of a batch on the CPU (packed rows have several), row by row.

    Over its token ids, labels and mask without padding, and its positions if they are not 0, 1, 2 … So a text has the
    same key in every batch, whatever it is padded to or stands beside; equal texts share a key.
    """
    texts = batch.apart
    counts = (texts.attention_mask != 0) | (texts.labels != IGNORED)
    known = (texts.input_ids, texts.labels, texts.attention_mask, texts.position_ids)
    columns = torch.stack([column for column in known if column is not None], dim=1).to(torch.int32)
    keys = []
    for text, real in zip(columns, counts, strict=True):
        places = real.nonzero()
        span = text[:, int(places[0]) : int(places[-1]) + 1] if len(places) else text[:, :0]
        is_usual = len(span) < 4 or torch.equal(span[3], torch.arange(span.shape[1], dtype=torch.int32))
        plain = (span[:3] if is_usual else span).contiguous().numpy().tobytes()
        keys.append(hashlib.blake2b(plain, digest_size=KEY_BYTES).digest())
    return keys
