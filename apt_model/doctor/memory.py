"""Estimate the memory of a training step (weights, gradients, optimizer, activations, logits) and read what is free.

Knows sizes; knows nothing of what is learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import psutil
import torch
from torch import Tensor, nn

from apt_model.config import LessonConfig
from apt_model.distill.losses.fused import chunk_rows_for
from apt_model.distill.losses.logit_blocks import padded

WRITTEN_OUT = 3  # float32 copies of a batch's logits if the student's head was not found: both models', the gradient
ROOMS = 3  # float32 work buffers of the fused loss, besides both heads' logits


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes that a training step needs, by purpose.

    Attributes:
        teacher, student: weights and buffers.
        gradients: as large as the trained weights.
        optimizer: AdamW's two moments, each as large as the gradients.
        activations: what the student's forward pass keeps for the backward pass: bytes a token as measured by
            `trial`, times the tokens of a batch.
        logits: both heads' logits of a chunk and three float32 buffers of its size; if the student's head was not
            found, three float32 copies of all logits of a batch besides.
    """

    teacher: int
    student: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum(getattr(self, field.name) for field in fields(self))

    def parts(self) -> dict[str, str]:
        """Readable sums for the report: both models, gradients and optimizer, activations and logits."""
        return {
            "models": readable(self.teacher + self.student),
            "training": readable(self.gradients + self.optimizer),
            "batch": readable(self.activations + self.logits),
        }


def memory_needed(
    student: nn.Module,
    teacher: nn.Module,
    *,
    tokens: int,
    width: int,
    kept_bytes: float,
    is_fused: bool,
    config: LessonConfig,
) -> MemoryNeed:
    """Estimate the memory that a step needs on the training device.

    Left out: temporary buffers of a layer, in the teacher's forward or the student's backward pass; validation (full
    logits of both models); the display; torch itself. On the CPU the estimate was 0.7 to 2.1 times what a step really
    took beyond the models (docs/log.md).

    Args:
        student, teacher: on any device.
        tokens: places of a batch, padding included.
        width: columns of the logits.
        kept_bytes: activations kept for the backward pass, bytes a token.
        is_fused: whether the fused loss computes the logits chunk by chunk.
        config: has the precision and the chunk size.
    """
    half = config.train.mixed_precision != "no" or config.train.head_dtype == "bf16"
    dtype, trained = torch.bfloat16 if half else torch.float32, trained_bytes(student)
    rows = min(config.train.chunk_rows or chunk_rows_for(width, dtype), tokens)
    fused = rows * padded(width) * (2 * dtype.itemsize + ROOMS * 4)
    return MemoryNeed(
        teacher=weight_bytes(teacher),
        student=weight_bytes(student),
        gradients=trained,
        optimizer=2 * trained,
        activations=round(kept_bytes * tokens),
        logits=fused + (0 if is_fused else WRITTEN_OUT * 4 * tokens * width),
    )


def memory_free(device: torch.device) -> int:
    """Free bytes on a device; accelerators other than CUDA are taken to share the machine's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers; tied tensors count once."""
    return _bytes([*model.parameters(), *model.buffers()])


def trained_bytes(model: nn.Module) -> int:
    """Bytes of the parameters with `requires_grad`."""
    return _bytes([parameter for parameter in model.parameters() if parameter.requires_grad])


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def readable(size: int) -> str:
    """A number of bytes with its unit: "12.0 MB", "3.4 GB"."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.1f} MB"
