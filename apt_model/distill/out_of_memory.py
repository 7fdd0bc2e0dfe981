"""Raise out-of-memory errors of a step as one line with the batch and the remedy.

Knows batches; knows nothing of what the step computed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from apt_model.data.batch import Batch
from apt_model.errors import OutOfMemoryError
from apt_model.models.out_of_memory import is_out_of_memory

REMEDY = (
    "set a smaller batch_size with more gradient_accumulation_steps, a smaller max_length or chunk_rows, "
    "or mixed_precision=bf16"
)


@contextmanager
def explained_out_of_memory(step: int, batches: Sequence[Batch]) -> Iterator[None]:
    """Context manager: an out-of-memory error becomes one line with the step's largest batch and the remedy.

    Raises:
        OutOfMemoryError: instead of what torch raised; the weights are those before the step, if it had not begun to
            update them.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        rows, length = max((tuple(batch.input_ids.shape) for batch in batches), key=lambda shape: shape[0] * shape[1])
        raise OutOfMemoryError(
            f"step {step} needs more memory than there is",
            got=f"a batch of {rows} × {length} tokens ({message})",
            fix=REMEDY,
        ) from error
