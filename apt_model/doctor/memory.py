"""Estimate the memory of a training step from its models, and read what is free.

Knows sizes (the formulas are in `need`); knows nothing of what is learned.
"""

from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from apt_model.config import LessonConfig
from apt_model.doctor.need import FLOAT32, MemoryNeed, head_bytes, logits_bytes
from apt_model.doctor.trial import TrialReading


def memory_needed(
    student: nn.Module, teacher: nn.Module, *, tokens: int, seen: TrialReading, config: LessonConfig
) -> MemoryNeed:
    """Estimate the memory that a step needs on the training device.

    Left out: temporary buffers of a layer, in the teacher's forward or the student's backward pass; validation (full
    logits of both models); the display; torch itself. On the CPU the estimate was 0.7 to 2.1 times what a step really
    took beyond the models (docs/log.md).

    Args:
        student, teacher: on any device.
        tokens: places of a batch, padding included.
        seen: of the trial, which measured what a forward pass keeps.
        config: has the precision and the chunk size.
    """
    is_half = config.train.mixed_precision != "no" or config.train.head_dtype == "bf16"
    width, trained = max(seen.teacher_width, seen.student_width), trained_bytes(student)
    return MemoryNeed(
        teacher=weight_bytes(teacher),
        student=weight_bytes(student),
        gradients=trained,
        optimizer=2 * trained,
        activations=round(seen.kept_bytes * tokens),
        casts=round(seen.kept_once),
        head=_head_bytes(student, is_half=is_half) if seen.is_fused else 0,
        logits=logits_bytes(width, tokens, is_half=is_half, chunk_rows=config.train.chunk_rows, is_fused=seen.is_fused),
    )


def _head_bytes(student: Any, *, is_half: bool) -> int:
    """Bytes of the fused pass over the head that a student names."""
    head = student.get_output_embeddings() if hasattr(student, "get_output_embeddings") else None
    if head is None or not head.weight.requires_grad:
        return 0
    return head_bytes(head.weight.numel(), is_half=is_half and head.weight.itemsize == FLOAT32)


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
