"""States of other objects as values that strict JSON holds (`storage`), and back: also tensors, arrays, tuples, bytes.

No pickle. Knows nothing of what the states are of.
"""

from base64 import b64decode, b64encode
from typing import Any

import numpy as np
import torch
from torch import Tensor

TUPLE, BYTES, TENSOR, ARRAY = ("a tuple", "bytes", "a tensor", "an array")  # keys of what JSON has no value for
TAKEN = ({TUPLE}, {BYTES}, {TENSOR}, {ARRAY}, {"float"}, {"pairs"})  # the last two by `storage`


def written(value: Any) -> Any:
    """A state as values that JSON holds, which share nothing with it.

    Raises:
        TypeError: something in it is neither plain nor a container, tensor, array or bytes.
    """
    match value:
        case np.generic():
            return written(value.item())
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [written(one) for one in value]
        case tuple():
            return {TUPLE: [written(one) for one in value]}
        case dict() if all(isinstance(key, str | int) for key in value) and value.keys() not in TAKEN:
            return {key: written(one) for key, one in value.items()}
        case bytes():
            return {BYTES: b64encode(value).decode()}
        case Tensor():
            kind, raw = str(value.dtype).removeprefix("torch."), value.detach().cpu().contiguous().reshape(-1)
            return {TENSOR: [kind, list(value.shape), written(raw.view(torch.uint8).numpy().tobytes())]}
        case np.ndarray() if not value.dtype.hasobject:
            return {ARRAY: [value.dtype.str, list(value.shape), written(value.tobytes())]}
    raise TypeError(f"{type(value).__name__} in a state_dict")


def read(value: Any) -> Any:
    """The state of `written`.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is none.
    """
    match value:
        case list():
            return [read(one) for one in value]
        case {"a tuple": content}:
            return tuple(read(content))
        case {"bytes": str(content)}:
            return b64decode(content)
        case {"a tensor": [kind, shape, raw]}:
            content, dtype = bytearray(read(raw)), getattr(torch, kind)
            return (torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)).reshape(shape)
        case {"an array": [kind, shape, raw]}:
            return np.frombuffer(read(raw), dtype=kind).reshape(shape).copy()
        case dict():
            return {key: read(one) for key, one in value.items()}
    return value
