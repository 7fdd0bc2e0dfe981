"""The identity of a run: settings, sizes, and content hashes of rows, models and tokenizers.

Knows what shapes the student; knows nothing of checkpoints, which compare it on resuming.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from apt_model.config import LessonConfig
from apt_model.config.sections import DistillConfig, TrainConfig
from apt_model.data.batch import steps_per_epoch
from apt_model.data.rng import generator_names
from apt_model.data.row_hashes import hash_reader, hash_rows
from apt_model.data.rows import is_stateless
from apt_model.distill.checkpoints.comparison import BEGINNING
from apt_model.distill.inputs import Data, Models
from apt_model.distill.teachers.live import TeacherSource
from apt_model.models.fingerprints import hash_build, hash_json, hash_tensors, hash_tokenization
from apt_model.models.forward import model_card
from apt_model.models.lora import frozen_tensors, has_adapters
from apt_model.models.weights import weights_of

MAY_CHANGE = {"device", "save_steps", "save_minutes", "save_total_limit", "on_nonfinite", "max_nonfinite"}
MAY_CHANGE |= {"merge_adapters", "teacher_device", "fsdp", "rank_patience"}
SCHEDULED = ("lr", "initial_lr", "max_lr", "min_lr", "momentum", "base_momentum", "max_momentum", "betas")
SHORT = 12  # hex digits of a hash that are kept and shown


def identity(
    config: LessonConfig, models: Models, data: Data, *, source: TeacherSource, optimizer: Optimizer
) -> dict[str, Any]:
    """What must be the same on resuming, as JSON values by name in words; None for what cannot be hashed.

    Takes as long as reading all weights and rows once does. The student is hashed as it is now: before its first step.
    """
    flat = config.to_dict()
    fixed = [*DistillConfig.model_fields, *(key for key in TrainConfig.model_fields if key not in MAY_CHANGE)]
    teacher, student = source.card, model_card(models.student)
    return {
        **{key: flat[key] for key in fixed},
        "teacher": f"{teacher.name} of {teacher.parameters:,} parameters",
        "student": f"{student.name} of {student.parameters:,} parameters",
        "batches": steps_per_epoch(data.train, 1),
        "batch_size": getattr(data.train, "batch_size", None),
        "optimizer": _described(models, optimizer),
        "the teacher's weights": _short(getattr(source, "fingerprint", None)),
        "the teacher's build": None if source.model is None else _short(hash_build(source.model)),
        **_of_student(models.student),
        "tokenizer": _short(hash_tokenization(models.tokenizer)),
        "the teacher's tokenizer": _short(hash_tokenization(models.teacher_tokenizer)),
        **_of_rows(data.train),
    }


def _described(models: Models, optimizer: Optimizer) -> str:
    """The optimizer's class; of the caller's own also which weights are in which group, and its settings.

    Without those that a schedule changes, where there is one.
    """
    name = type(optimizer).__name__
    if models.optimizer is None:
        return name
    scheduled = SCHEDULED if models.scheduler is not None else ()
    groups = [
        ", ".join(
            f"{key}={value}"
            for key, value in group.items()
            if isinstance(value, int | float | tuple) and key not in scheduled
        )
        for group in optimizer.param_groups
    ]
    names = {id(parameter): key for key, parameter in models.student.named_parameters()}
    order = [[names.get(id(one)) for one in group["params"]] for group in optimizer.param_groups]
    return f"{name}({'; '.join(groups)}; {_short(hash_json(order))})"


def _of_rows(batches: Iterable[Any]) -> dict[str, Any]:
    """Hashes of all rows, as a set and in order, and how a loader draws them."""
    found = hash_rows(batches)
    known: dict[str, Any] = {
        "data": found and f"{found.rows:,} entries ({found.as_set[:SHORT]})",
        "order of data": found and found.in_order[:SHORT],
        "the data's own generators": ", ".join(generator_names(batches)) or "none",
    }
    if isinstance(batches, DataLoader):
        reader = _short(hash_reader(batches))
        known["sampler"] = f"{type(batches.sampler).__name__}, drop_last={batches.drop_last}, {reader}"
        if not is_stateless(batches.dataset):  # else the rows are the same whoever reads them
            known["workers"] = batches.num_workers
    return known


def _of_student(student: nn.Module) -> dict[str, Any]:
    """Hashes of the weights that a student trains, and of what no checkpoint holds: its build, the base of adapters."""
    return {
        "the student's build": _short(hash_build(student)),
        BEGINNING: _short(hash_tensors(weights_of(student))),
        **({"base": _short(hash_tensors(frozen_tensors(student)))} if has_adapters(student) else {}),
    }


def _short(digest: str | None) -> str | None:
    return digest and digest[:SHORT]
