"""Raise out-of-memory errors of a step as one line with the batch and the remedy.

Knows batches; knows nothing of what the step computed.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from apt_model.data.batch import Batch
from apt_model.models.out_of_memory import out_of_memory_told

REMEDY = (
    "set a smaller batch_size with more gradient_accumulation_steps, a smaller max_length or chunk_rows, "
    "or mixed_precision=bf16"
)


def explained_out_of_memory(step: int, batches: Sequence[Batch]) -> AbstractContextManager[None]:
    """Context manager: an out-of-memory error becomes one line with the step's largest batch and the remedy.

    Raises:
        OutOfMemoryError: instead of what torch raised; the weights are those before the step, if it had not begun to
            update them.
    """
    shapes = (tuple(batch.input_ids.shape) for batch in batches)
    rows, length = max(shapes, key=lambda shape: shape[0] * shape[1], default=(0, 0))
    return out_of_memory_told(f"step {step}", REMEDY, f"a batch of {rows} × {length} tokens")
