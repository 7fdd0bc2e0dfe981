"""What grading a batch gives: its loss with gradient, the sums of the terms, a row for a card.

Knows nothing of how a batch is graded.
"""

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from apt_model.distill.losses.readout import CardRow, RowReadout


class LossTerms(NamedTuple):
    """The terms of the loss, without gradient: sums over positions; 0 for a term that is off."""

    kd: Tensor
    ce: Tensor
    hidden: Tensor
    attention: Tensor
    router: Tensor


class Graded(NamedTuple):
    """A batch's part of the step: its loss with gradient, the sums of its terms, and its row for a card."""

    loss: Tensor
    terms: LossTerms
    readout: RowReadout | None

    def of_card(self, card: CardRow) -> "Graded":
        """The same, with the row's place in another batch."""
        return self._replace(readout=self.readout and replace(self.readout, card=card))
