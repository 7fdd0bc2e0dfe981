"""Out-of-memory errors of torch and Python as one line of ours. Knows their messages, not what was computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from apt_model.errors import OutOfMemoryError, reason_of

SAID_BY_TORCH = ("out of memory", "not enough memory", "can't allocate memory")  # CUDA and MPS; the CPU; the CPU


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the machine or an accelerator is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID_BY_TORCH)


@contextmanager
def out_of_memory_told(what: str, fix: str, held: str | None = None) -> Iterator[None]:
    """Context manager: an out-of-memory error becomes one line with what was computed, what torch says, and the remedy.

    Args:
        what: needs more memory than there is.
        fix: the remedy.
        held: sizes of what was to be held, before torch's words.

    Raises:
        OutOfMemoryError: instead of what torch or Python raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        message = reason_of(error)
        got = message if held is None else f"{held} ({message})"
        raise OutOfMemoryError(f"{what} needs more memory than there is", got=got, fix=fix) from error
