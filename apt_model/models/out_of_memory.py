"""Recognise out-of-memory errors of torch and Python. Knows their messages; knows nothing of what was computed."""

import torch

SAID_BY_TORCH = ("out of memory", "not enough memory", "can't allocate memory")  # CUDA and MPS; the CPU; the CPU


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the machine or an accelerator is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID_BY_TORCH)
