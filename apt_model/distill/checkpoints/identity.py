"""The identity of a run: settings, models and data that must be the same on resuming.

Knows what shapes the student; knows nothing of checkpoints' files.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from apt_model.config import LessonConfig
from apt_model.config.sections import DistillConfig, TrainConfig
from apt_model.data.batch import Batch, steps_per_epoch
from apt_model.events.records import ModelCard
from apt_model.models.fingerprints import hash_tensors
from apt_model.models.lora import frozen_tensors, has_adapters

MAY_CHANGE = {"device", "save_steps", "save_minutes", "save_total_limit", "on_nonfinite", "max_nonfinite"}
MAY_CHANGE |= {"merge_adapters", "teacher_device"}


def identity(
    config: LessonConfig,
    models: tuple[ModelCard, ModelCard],
    batches: Iterable[Any],
    *,
    processes: int,
    optimizer: Optimizer,
    keeps: Iterable[str],
    student_model: nn.Module,
) -> dict[str, Any]:
    """What must be the same on resuming, as JSON values: settings, models, data, processes, optimizer."""
    flat = config.to_dict()
    fixed = [*DistillConfig.model_fields, *(key for key in TrainConfig.model_fields if key not in MAY_CHANGE)]
    teacher, student = models
    return {
        **{key: flat[key] for key in fixed},
        "teacher": f"{teacher.name} of {teacher.parameters:,} parameters",
        "student": f"{student.name} of {student.parameters:,} parameters",
        "batches": steps_per_epoch(batches, 1),
        "batch_size": getattr(batches, "batch_size", None),
        "processes": processes,
        "optimizer": type(optimizer).__name__,
        "keeps": sorted(keeps),
        **({"base": hash_tensors(frozen_tensors(student_model))} if has_adapters(student_model) else {}),
    }


def fingerprint(batch: Batch) -> str:
    """sha256 of a batch's token ids, labels and, if it has its own, positions."""
    parts = (part for part in (batch.input_ids, batch.labels, batch.position_ids) if part is not None)
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
