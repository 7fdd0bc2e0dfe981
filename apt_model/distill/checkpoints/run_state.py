"""The parts of a run that a checkpoint holds. Knows nothing of files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from apt_model.data.data_state import DataState
from apt_model.data.streams import StreamState
from apt_model.distill.checkpoints.generators import GeneratorState
from apt_model.distill.checkpoints.progress import Progress


class Stateful(Protocol):
    """An object with `state_dict` and `load_state_dict` of JSON values: statistics, the run's record, a schedule."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore a state of `state_dict`."""


@dataclass(kw_only=True)
class RunState:
    """The parts of a run that a checkpoint holds.

    Attributes:
        student: without accelerate's wrapper.
        teacher: whose inner state is kept, not its weights; None for a cache.
        beside: trained parameters that are no part of the student (projections of layer matching); None if there are
            none.
        others: schedule, scaler, statistics and so on, by name.
        identity: settings, sizes and data that must be the same on resuming.
        data: generators, and what the data loader holds of its own state.
        is_divided: the caller gave each rank rows of its own.
        at_epoch_start: that state at the beginning of the current epoch, from which its order of data follows.
        stream: the place that a stream keeps of itself.
    """

    student: nn.Module
    teacher: nn.Module | None = None
    beside: nn.Module | None = None
    optimizer: Optimizer
    progress: Progress
    others: Mapping[str, Stateful]
    identity: Mapping[str, Any]
    device: torch.device
    data: DataState
    is_divided: bool = False
    at_epoch_start: GeneratorState | None = None
    stream: StreamState = field(init=False)

    def __post_init__(self) -> None:
        self.stream = StreamState(self.data.loader)

    def models(self) -> dict[str, nn.Module]:
        """The models by role."""
        return {"student": self.student, **({"teacher": self.teacher} if self.teacher is not None else {})}
