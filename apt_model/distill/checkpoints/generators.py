"""The random generators' states of a checkpoint, and setting them on resuming. Knows nothing of files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apt_model.data.data_state import DataState
from apt_model.data.rng import Tensors, below
from apt_model.distill.checkpoints.optimizer_state import refuse_missing
from apt_model.errors import StorageError

GeneratorState = tuple[dict[str, Any], Tensors]  # as `DataState.read` gives it


@dataclass(frozen=True, kw_only=True)
class RestoredGenerators:
    """The states of a run's random generators, as read from a checkpoint.

    Attributes:
        checkpoint: its directory, for messages.
        ranks: that the checkpoint was written by.
        at_epoch_start: at the start of the current epoch; the epoch's order of data follows from it.
        at_save: when the checkpoint was written.
        stream: the stream's own place before the last batch; None if it has none that is exact.
    """

    checkpoint: Path
    ranks: int
    at_epoch_start: GeneratorState
    at_save: GeneratorState
    stream: Mapping[str, Any] | None

    @classmethod
    def of(
        cls,
        checkpoint: Path,
        ranks: int,
        plain: Mapping[str, Any],
        tensors: Tensors,
        stream: Mapping[str, Any] | None,
    ) -> "RestoredGenerators":
        """From the JSON values and the tensors of a checkpoint.

        Raises:
            ValueError: something is missing.
        """
        refuse_missing("generators", ("now", "epoch"), plain)
        refuse_missing("generators", plain["tensors"], tensors)
        epoch, now = ((plain[when], below(when, tensors)) for when in ("epoch", "now"))
        return cls(checkpoint=checkpoint, ranks=ranks, at_epoch_start=epoch, at_save=now, stream=stream)

    def set_to_epoch_start(self, device: torch.device, data: DataState) -> GeneratorState:
        """Set this process's generators to the state at the epoch's start; returns that state.

        Raises:
            StorageError: they cannot be set.
        """
        self._set(self.at_epoch_start, device, data)
        return self.at_epoch_start

    def set_to_save(self, device: torch.device, data: DataState) -> None:
        """Set this process's generators to the state at which the checkpoint was written.

        Raises:
            StorageError: they cannot be set.
        """
        self._set(self.at_save, device, data)

    def _set(self, state: GeneratorState, device: torch.device, data: DataState) -> None:
        try:
            data.set(*state, device)
        except (LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            got = f"{type(error).__name__}: {error}"[:300]
            raise StorageError(f"random generators of checkpoint {self.checkpoint} cannot be set", got=got) from error
