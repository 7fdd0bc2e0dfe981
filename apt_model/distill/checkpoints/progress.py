"""Counters of a run and its current epoch: steps, tokens, losses, seconds. Knows nothing of what is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from apt_model.events.series import BoundedSeries

OF_A_RANK = ("own_batches", "drawn", "exhausted")
ABSURD = 1e12  # no run has as many steps, tokens or seconds


@dataclass(kw_only=True)
class Progress:
    """Counters of a run and of its current epoch.

    Attributes:
        step: optimizer steps done.
        epoch: the current epoch, from 1; 0 before the first.
        batches: taken from the data in this epoch, by all ranks.
        own_batches: those that this rank took.
        finished: whether the current epoch is over.
        tokens, skipped: positions learned from, and batches without a label, in the whole run.
        seconds: training time up to the last checkpoint.
        epoch_steps, epoch_tokens, epoch_skipped, epoch_loss_sum, epoch_seconds: of this epoch; the loss sum is over
            its tokens.
        nonfinite_in_a_row: consecutive non-finite steps since the last good one.
        drawn: hash of this rank's batches of the epoch so far, in order.
        exhausted: whether this rank's data was found to have no further batch in this epoch.
        losses: of all steps.
    """

    step: int = 0
    epoch: int = 0
    batches: int = 0
    own_batches: int = 0
    finished: bool = True
    tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0
    epoch_steps: int = 0
    epoch_tokens: int = 0
    epoch_skipped: int = 0
    epoch_loss_sum: float = 0.0
    epoch_seconds: float = 0.0
    nonfinite_in_a_row: int = 0
    drawn: str = ""
    exhausted: bool = False
    losses: BoundedSeries = field(default_factory=BoundedSeries)

    @property
    def has_left_an_epoch(self) -> bool:
        """Whether an epoch is over, so that loader workers may have lived on from it."""
        return self.epoch > 1 or self.finished

    def begin_epoch(self) -> None:
        """Count up the epoch, and reset its counters."""
        self.epoch += 1
        self.finished, self.exhausted, self.drawn = False, False, ""
        self.batches = self.own_batches = self.epoch_steps = self.epoch_tokens = self.epoch_skipped = 0
        self.epoch_loss_sum = self.epoch_seconds = 0.0

    def count_step(self, loss: float, tokens: int) -> None:
        """Count an optimizer step with its loss and number of labels."""
        self.step += 1
        self.epoch_steps += 1
        self.tokens += tokens
        self.epoch_tokens += tokens
        self.epoch_loss_sum += loss * tokens
        self.nonfinite_in_a_row = 0
        self.losses.add(loss)

    def count_skipped(self, batches: int) -> None:
        """Count batches that were left out for having no label."""
        self.skipped += batches
        self.epoch_skipped += batches

    def state_dict(self) -> dict[str, Any]:
        """All counters, as JSON values."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "losses"}
        return {**numbers, "losses": self.losses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`.

        Raises:
            KeyError, TypeError, ValueError: a number is missing, of another type, negative or above `ABSURD`.
        """
        for one in fields(self):
            if one.name != "losses":
                self._load(one.name, state[one.name])
        self.losses.load_state_dict(state["losses"])

    def load_place(self, state: Mapping[str, Any]) -> None:
        """Restore a rank's own place in its data; raises as `load_state_dict`."""
        for name in OF_A_RANK:
            self._load(name, state[name])

    def _load(self, name: str, value: Any) -> None:
        absurd = isinstance(value, int | float) and name != "epoch_loss_sum" and not 0 <= value < ABSURD
        if type(value) is not type(getattr(self, name)) or absurd:
            raise ValueError(f"{name} is {value!r}")
        setattr(self, name, value)
