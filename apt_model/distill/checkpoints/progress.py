"""How far a run has come, in numbers that can be kept and taken up again. Knows nothing of what they count."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from apt_model.events.series import BoundedSeries

ABSURD = 1e12  # no run has as many steps, tokens or seconds


@dataclass(kw_only=True)
class Progress:
    """Counters of a run and of its present epoch.

    Attributes:
        step: optimizer steps done.
        epoch: the present epoch, from 1; 0 before the first.
        batches: taken from the data in this epoch.
        finished: whether the present epoch is over.
        tokens, skipped: positions learned from, and batches without a label, in all.
        seconds: spent, up to the last checkpoint.
        epoch_steps, epoch_tokens, epoch_skipped, epoch_loss_sum, epoch_seconds: of this epoch; the loss sum is over
            its tokens.
        nonfinite_in_a_row: steps given up, one after the other, since the last good one.
        first_batch: hash of the epoch's first batch.
        losses: of all steps.
    """

    step: int = 0
    epoch: int = 0
    batches: int = 0
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
    first_batch: str = ""
    losses: BoundedSeries = field(default_factory=BoundedSeries)

    def begin_epoch(self) -> None:
        """The next epoch begins."""
        self.epoch += 1
        self.finished, self.first_batch = False, ""
        self.batches = self.epoch_steps = self.epoch_tokens = self.epoch_skipped = 0
        self.epoch_loss_sum = self.epoch_seconds = 0.0

    def count_step(self, loss: float, tokens: int) -> None:
        """One optimizer step was taken."""
        self.step += 1
        self.epoch_steps += 1
        self.tokens += tokens
        self.epoch_tokens += tokens
        self.epoch_loss_sum += loss * tokens
        self.nonfinite_in_a_row = 0
        self.losses.add(loss)

    def count_skipped(self, batches: int) -> None:
        """Batches without a label were left out."""
        self.skipped += batches
        self.epoch_skipped += batches

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "losses"}
        return {**numbers, "losses": self.losses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` kept.

        Raises:
            KeyError, TypeError, ValueError: a number is missing, of another type, or absurd.
        """
        for one in fields(self):
            if one.name == "losses":
                continue
            value = state[one.name]
            absurd = isinstance(value, int | float) and one.name != "epoch_loss_sum" and not 0 <= value < ABSURD
            if type(value) is not type(getattr(self, one.name)) or absurd:
                raise ValueError(f"{one.name} is {value!r}")
            setattr(self, one.name, value)
        self.losses.load_state_dict(state["losses"])
