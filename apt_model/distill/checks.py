"""Checks of a run: shared or frozen weights, an optimizer of other parameters, no causal mask, an empty epoch.

Knows what is wrong; knows nothing of how training goes on.
"""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from apt_model.data.batch import Batch
from apt_model.distill.out_of_memory import explained_out_of_memory
from apt_model.errors import DataError, ModelError
from apt_model.models.causality import refuse_not_causal
from apt_model.models.forward import Forward
from apt_model.models.weights import memory_of


def refuse_shared_weights(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a student that shares a weight with its teacher: training would change the teacher.

    Raises:
        ModelError: they are the same object, or share a tensor's storage.
    """
    if student is teacher:
        raise ModelError(
            "teacher and student are the same model", fix="copy.deepcopy the teacher, or make a smaller student"
        )
    teachers = {memory_of(tensor) for tensor in teacher.parameters() if tensor.numel()}
    shared = [name for name, p in student.named_parameters() if memory_of(p) in teachers]
    if shared:
        raise ModelError(
            "student shares weights with the teacher", got=", ".join(shared[:3]), fix="clone them in the student"
        )


def check_trainable(student: nn.Module, optimizer: Optimizer | None) -> None:
    """Refuse a run in which no weight could change.

    Raises:
        ModelError: the student is frozen, or the optimizer holds none of its parameters.
    """
    trained = {p for p in student.parameters() if p.requires_grad}
    if not trained:
        raise ModelError("student has no trainable parameter", fix="student.requires_grad_(True)")
    if optimizer is not None and trained.isdisjoint(p for group in optimizer.param_groups for p in group["params"]):
        raise ModelError("optimizer has none of the student's parameters", fix="make it from student.parameters()")


def refuse_seeing_ahead(
    models: Mapping[str, nn.Module | None], window: Sequence[Batch], device: torch.device, mixed_precision: str
) -> bool:
    """Refuse a teacher or student that sees the tokens it is to predict.

    Args:
        models: by role; None for a cached teacher, which cannot be asked.
        window: batches on the CPU.
        device, mixed_precision: of the training.

    Returns:
        Whether it was tried: False where no row has two tokens.

    Raises:
        ModelError: one of them is not causal.
    """
    longest = max(window, key=lambda batch: int(batch.attention_mask.sum(dim=1).max()))
    rows = {"teacher": longest.for_teacher, "student": longest}
    tried = [
        refuse_not_causal(model, rows[role], role=role, device=device, mixed_precision=mixed_precision)
        for role, model in models.items()
        if model is not None
    ]
    return all(tried)


class CausalityCheck:
    """Refuses models that are not causal, once in a run: on its first window that has a row of two tokens.

    Args:
        models, device, mixed_precision: as for `refuse_seeing_ahead`.
    """

    def __init__(self, models: Mapping[str, nn.Module | None], device: torch.device, mixed_precision: str) -> None:
        self._models, self._device, self._mixed_precision = models, device, mixed_precision
        self._is_done = False

    def check(self, window: Sequence[Batch], *, step: int) -> None:
        """Try both models on batches of optimizer step `step`, if that has not been done.

        Raises:
            ModelError: one of them is not causal. OutOfMemoryError: one of them does not fit.
        """
        if not self._is_done:
            with explained_out_of_memory(step, window):
                self._is_done = refuse_seeing_ahead(self._models, window, self._device, self._mixed_precision)


class PackingTrial:
    """Tries out once whether sharded models keep packed texts apart: else each process would in a step of its own.

    Args:
        models: those that are sharded.
        accelerator: has the device and the autocast.
    """

    def __init__(self, models: Sequence[nn.Module], accelerator: Accelerator) -> None:
        self._models, self._accelerator = models, accelerator
        self._is_done = not models

    def try_out(self, batches: Sequence[Batch]) -> None:
        """Try the models out on the first of some batches that has packed rows."""
        packed = next((one for one in batches if one.segments is not None and one.segments.is_packed), None)
        if not self._is_done and packed is not None:
            with self._accelerator.autocast():
                for model in self._models:
                    Forward(model, "model").try_out(model, packed.to(self._accelerator.device))
            self._is_done = True


def refuse_empty(epoch: int, batches: int, steps: int) -> None:
    """Refuse to go on after an epoch without an optimizer step.

    Raises:
        DataError: no batch came, or no batch had a label.
    """
    if not batches:
        fix = "give data" if epoch == 1 else "pass a DataLoader or a list: a generator is used up after one epoch"
        raise DataError(f"epoch {epoch} has 0 batches", fix=fix)
    if not steps:
        raise DataError(f"no token of epoch {epoch} has a label", got=f"{batches} batches, all labels -100")
