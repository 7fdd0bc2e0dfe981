"""The memory of a training step by purpose, from sizes alone: the formulas behind `memory` and `plan`.

Numbers only: knows nothing of models, devices or torch.
"""

from dataclasses import dataclass, fields

from apt_model.distill.losses.chunk_size import chunk_rows_for, padded

WRITTEN_OUT = 3  # float32 copies of a batch's logits if the student's head was not found: both models', the gradient
ROOMS = 3  # float32 work buffers of the fused loss, besides both heads' logits
FLOAT32, HALF = 4, 2  # bytes
MOMENTS = {"adamw": 2 * FLOAT32, "adamw8bit": 2, "sgd": 0}  # bytes that an optimizer keeps for a trained number


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes that a training step needs on one device, by purpose.

    Attributes:
        teacher, student: weights and buffers.
        gradients: as large as the trained weights.
        optimizer: AdamW's two moments, each as large as the gradients.
        activations: what the student's forward pass keeps for the backward pass.
        casts: copies of the student's weights in autocast's dtype, kept with the activations.
        head: of the fused pass over the student's head: the float32 gradient of its weight, before it is added to the
            one counted above (of a tied or sharded weight, of the batch before); with a half dtype, the weight and a
            product in it.
        logits: both heads' logits of a chunk and three float32 buffers of its size; if the student's head was not
            found, three float32 copies of all logits of a batch besides.
        gathered: weights of sharded models that are whole for a moment: the root's, and two layers'.
        buckets: DDP's copy of the gradients, which it sums over processes.
    """

    teacher: int
    student: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    casts: int = 0
    head: int = 0
    gathered: int = 0
    buckets: int = 0

    @property
    def total(self) -> int:
        """The sum of all: no step needs all of it at one moment, except one that accumulates."""
        return sum(self.by_purpose().values())

    def by_purpose(self) -> dict[str, int]:
        """Each purpose with its bytes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def parts(self) -> dict[str, str]:
        """Readable sums for the report: both models, gradients and optimizer, activations and logits."""
        return {
            "models": readable(self.teacher + self.student),
            "training": readable(self.gradients + self.optimizer),
            "batch": readable(self.activations + self.casts + self.head + self.logits),
        }


def logits_bytes(width: int, tokens: int, *, is_half: bool, chunk_rows: int | None, is_fused: bool = True) -> int:
    """Bytes of the logits of a step.

    Args:
        width: columns of the logits.
        tokens: places of a batch.
        is_half: whether the head's products are in a 2-byte dtype.
        chunk_rows: positions of a chunk; None: as the fused loss chooses them.
        is_fused: whether the fused loss computes the logits chunk by chunk.
    """
    itemsize = HALF if is_half else FLOAT32
    rows = min(chunk_rows or chunk_rows_for(width, itemsize), tokens)
    fused = rows * padded(width) * (2 * itemsize + ROOMS * FLOAT32)
    return fused + (0 if is_fused else WRITTEN_OUT * FLOAT32 * tokens * width)


def head_bytes(numbers: int, *, is_half: bool) -> int:
    """Bytes of the fused pass over a student's trained head.

    Args:
        numbers: of its weight.
        is_half: whether its products are in a 2-byte dtype and the weight is not.
    """
    return numbers * (FLOAT32 + 2 * HALF * is_half)


def readable(size: int) -> str:
    """A number of bytes with its unit: "12.0 MB", "3.4 GB"."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.1f} MB"
