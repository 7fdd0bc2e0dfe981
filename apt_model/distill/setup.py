"""Set up accelerator, AdamW and learning-rate schedule of a run.

Knows nothing of losses or lessons.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, patch_environment
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from transformers import get_scheduler

from apt_model.config.sections import TrainConfig
from apt_model.data.shares import Share
from apt_model.errors import ConfigError
from apt_model.ranks.place import place

# Of a collective: a rank may wait long for one that holds an exam or saves; one that is lost is seen by its heartbeat.
NO_TIMEOUT = timedelta(days=7)


def make_accelerator(device: torch.device, mixed_precision: str) -> Accelerator:
    """An `Accelerator` on `device`, or under a launcher of several processes on the device that it assigns.

    Raises:
        ConfigError: the device does not support this precision.
    """
    try:
        if place().size > 1:
            # else accelerate would wait for its own way of sharding, which cannot give back a model for a look at it
            with patch_environment(ACCELERATE_USE_FSDP="false"):
                return Accelerator(
                    mixed_precision=mixed_precision,
                    cpu=device.type == "cpu",
                    kwargs_handlers=[InitProcessGroupKwargs(timeout=NO_TIMEOUT)],
                    **_no_accumulation(),
                )
        with patch_environment(accelerate_torch_device=str(device)):
            return Accelerator(mixed_precision=mixed_precision, **_no_accumulation())
    except ValueError as error:
        raise ConfigError(
            f"{device} does not support mixed_precision={mixed_precision}", got=str(error), fix="set mixed_precision=no"
        ) from error


def _no_accumulation() -> dict[str, Any]:
    """Turn accelerate's gradient accumulation off, whatever its environment says.

    The loop itself divides by the labels of the whole accumulation window; accelerate must not divide again.
    """
    return {"gradient_accumulation_plugin": GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False)}


def make_optimizer(student: nn.Module, config: TrainConfig) -> Optimizer:
    """Fused AdamW, with weight decay on matrices only, not on norms and biases.

    Fused, since torch's other implementations take ten times as long on the CPU.
    """
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)


@contextmanager
def trained(student: nn.Module) -> Iterator[None]:
    """Context manager: the student in train mode; afterwards in eval mode, without accelerate's wrapper of `forward`.

    accelerate's `unwrap_model` would also strip the decorators that transformers puts there.
    """
    forward = student.__dict__.get("forward")
    student.train()
    try:
        yield
    finally:
        student.__dict__.pop("_original_forward", None)
        student.__dict__.pop("forward", None)
        if forward is not None:
            student.forward = forward
        student.eval()


def make_schedule(optimizer: Optimizer, config: TrainConfig, total_steps: int | None) -> LambdaLR:
    """The configured learning-rate schedule; constant if the number of steps is unknown."""
    if total_steps is None:
        return LambdaLR(optimizer, lambda step: 1.0)
    warmup = int(config.warmup_ratio * total_steps)
    schedule: LambdaLR = get_scheduler(
        config.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps
    )
    return schedule


class OwnSchedule:
    """The configured schedule and weight decay in a checkpoint: what is taken up again is the step alone.

    At that step, rates and weight decay are those of this run's settings and length, so that a run resumed with more
    steps, another warm-up or another rate follows them from its first step on.
    """

    def __init__(self, optimizer: Optimizer, schedule: LambdaLR) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self._settings = [
            {key: group[key] for key in ("initial_lr", "weight_decay")} for group in optimizer.param_groups
        ]

    def state_dict(self) -> dict[str, Any]:
        """The schedule's own state."""
        return self._schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on at the step of a state of `state_dict`, after the optimizer's state has been restored."""
        schedule = self._schedule
        rates = [
            base * factor(state["last_epoch"])
            for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        schedule.load_state_dict({**state, "base_lrs": schedule.base_lrs})
        for group, own, rate in zip(self._optimizer.param_groups, self._settings, rates, strict=True):
            group.update(own, lr=rate)


class GivenSchedule:
    """The caller's schedule in a checkpoint: one that was made otherwise than that of the run before begins anew.

    It is then stepped to the place where the run was, so that a longer one is followed from the first step on. So are
    all schedules by functions (`LambdaLR`, transformers' own): what is saved of them does not tell them apart.
    """

    def __init__(self, optimizer: Optimizer, schedule: LRScheduler) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self._made: dict[str, Any] = deepcopy(schedule.state_dict())
        self._settings = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state, and under `made` what it was when it was made."""
        return {**self._schedule.state_dict(), "made": self._made}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on at the step of a state of `state_dict`, after the optimizer's state has been restored."""
        made, then = state.get("made", self._made), {key: value for key, value in state.items() if key != "made"}
        is_same = json.dumps(made, sort_keys=True) == json.dumps(self._made, sort_keys=True)
        if (
            isinstance(self._schedule, ReduceLROnPlateau)
            or "last_epoch" not in then
            or (is_same and not isinstance(self._schedule, LambdaLR))
        ):
            self._schedule.load_state_dict(then)
            return
        for group, own in zip(self._optimizer.param_groups, self._settings, strict=True):
            group.update(own)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(then["last_epoch"] - self._made["last_epoch"]):
                self._schedule.step()


def run_length(share: Share, train: TrainConfig) -> tuple[int, int | None]:
    """Number of epochs, and of optimizer steps in all, or None if the data has no length."""
    per_epoch = share.steps_per_epoch(train.gradient_accumulation_steps)
    if train.max_steps is None:
        return train.num_epochs, None if per_epoch is None else per_epoch * train.num_epochs
    return (-(-train.max_steps // per_epoch) if per_epoch else train.num_epochs), train.max_steps
