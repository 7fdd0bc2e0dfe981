"""Hashes that identify a model's weights and config, a tokenizer's vocabulary, and rows of data.

Knows what makes two of them equal; knows nothing of caches, losses or lessons.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from apt_model.data.batch import Batch
from apt_model.data.encode import IGNORED

KEY_BYTES = 16
_NOT_HASHED = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def hash_model(model: nn.Module) -> str:
    """sha256 over a model's weights and its config, if it has one; the path it was loaded from does not count."""
    return hash_tensors(model.state_dict(), hash_config(getattr(model, "config", None)))


def hash_tensors(tensors: Mapping[str, Tensor], before: str = "") -> str:
    """sha256 over the string `before` and the tensors: names, dtypes, shapes, bytes."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_config(config: Any) -> str:
    """sha256 over a Hugging Face config without `_NOT_HASHED`; anything else hashes as an empty config."""
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    return hash_json({key: value for key, value in values.items() if key not in _NOT_HASHED})


def hash_tokenizer(tokenizer: Any) -> str | None:
    """sha256 over the vocabulary, token to id; None without a tokenizer."""
    return None if tokenizer is None else hash_json(tokenizer.get_vocab())


def hash_json(value: Any) -> str:
    """sha256 over a value as JSON with sorted keys; what is no JSON value counts as its `str()`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def row_keys(batch: Batch) -> list[bytes]:
    """A 16-byte BLAKE2b key for each row of a batch on the CPU, over its token ids, labels and mask without padding.

    So a row has the same key in every batch, whatever it is padded to on either side; equal rows share a key.
    """
    counts = (batch.attention_mask != 0) | (batch.labels != IGNORED)
    columns = torch.stack([batch.input_ids, batch.labels, batch.attention_mask], dim=1).to(torch.int32)
    keys = []
    for row, real in zip(columns, counts, strict=True):
        places = real.nonzero()
        span = row[:, int(places[0]) : int(places[-1]) + 1] if len(places) else row[:, :0]
        keys.append(hashlib.blake2b(span.contiguous().numpy().tobytes(), digest_size=KEY_BYTES).digest())
    return keys
