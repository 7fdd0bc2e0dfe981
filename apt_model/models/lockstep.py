"""Forward passes of sharded models that some processes run and others do not, or not as often.

Each block of such a model is gathered from all processes. In training all run the same blocks in the same order; for an
exam, a card, a reading, a sampled text they do not. Knows nothing of what the models are run for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from apt_model.models.sharding import blocks_and_rest, rest


class Lockstep:
    """Lets every process join in the forward passes of any other.

    Args:
        models: those that are sharded; none: there is nothing to join in.
        device: of this process.

    Attributes:
        models: as they were given.
    """

    def __init__(self, models: Sequence[nn.Module], device: torch.device) -> None:
        self.models, self._device = models, device
        self._units: list[FSDPModule] = []
        self._numbers: list[tuple[nn.Module, int]] = []  # modules whose forward needs a unit, and its number from 1
        for model in models:
            for module in blocks_and_rest(model):
                assert isinstance(module, FSDPModule)  # noqa: S101 - `shard` has made it one
                self._units.append(module)
                self._numbers.append((module, len(self._units)))

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Context manager that all processes enter: each may run the models inside, without gradient, or none.

        It ends when all are through. No other communication may take place inside.
        """
        if not self._units:
            yield
            return
        hooks = [
            module.register_forward_pre_hook(partial(self._before, number), prepend=True)
            for module, number in self._numbers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            while turn := self._next(0):
                self._lend(turn)
            for model in self.models:
                rest(model)

    def _before(self, number: int, module: nn.Module, args: Any) -> None:
        """Gather a unit on all processes; where another process needs another one, that is gathered first."""
        while (turn := self._next(number)) != number:
            self._lend(turn)
        self._gather(number)

    def _next(self, wanted: int) -> int:
        """The number of the unit to gather next, the same on all processes; 0 if no process needs any."""
        turn = torch.tensor(wanted, device=self._device)
        dist.all_reduce(turn, dist.ReduceOp.MAX)
        return int(turn)

    def _lend(self, number: int) -> None:
        self._gather(number)
        self._units[number - 1].reshard()

    def _gather(self, number: int) -> None:
        unit = self._units[number - 1]
        unit.reshard()  # or nothing is sent where it is still whole, and the others wait
        unit.unshard()
