"""One optimizer step: forward and backward over a window of batches, clipping, the update, the learning rate.

Tensors end here. Knows nothing of epochs, checkpoints or who is told.
"""

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from apt_model.config.sections import TrainConfig
from apt_model.distill.batches import Window
from apt_model.distill.checkpoints.progress import Progress
from apt_model.distill.grader import Grader
from apt_model.distill.losses.readout import CardRow, RowReadout, numbers
from apt_model.distill.nonfinite import NonFinite, clip
from apt_model.distill.out_of_memory import explained_out_of_memory
from apt_model.errors import ConfigError
from apt_model.ranks.collective import sum_over_ranks
from apt_model.ranks.group import ranks


class StepTaken(NamedTuple):
    """The numbers of an optimizer step: means over its tokens, and the card statistics of its batches."""

    loss: float
    kd: float
    ce: float
    hidden: float
    attention: float
    router: float
    grad_norm: float
    learning_rate: float
    readouts: list[RowReadout | None]


class OptimizerStep:
    """Updates the student.

    Args:
        student: as it is wrapped for training.
        optimizer: the student's, as the caller knows it; accelerate wraps it here.
        scheduler: of its learning rate; None leaves the rate alone.
        grader: computes the loss and puts its gradient into the parameters.
        nonfinite: looks at loss and gradient before they reach a weight.
        accelerator: scales, clips and sums over processes.
        config: only `max_grad_norm` is read.
    """

    def __init__(
        self,
        student: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        *,
        grader: Grader,
        nonfinite: NonFinite,
        accelerator: Accelerator,
        config: TrainConfig,
    ) -> None:
        self._student, self._grader, self._nonfinite = student, grader, nonfinite
        self._accelerator, self._config, self._scheduler = accelerator, config, scheduler
        self._optimizer = accelerator.prepare_optimizer(optimizer)
        self._optimizer.zero_grad()

    def take(self, window: Window, rows: Sequence[CardRow | None], tokens: int, progress: Progress) -> StepTaken | None:
        """Take an optimizer step on a window of batches; None if it was skipped as non-finite.

        Args:
            window: numbered batches.
            rows: what a card shows of each, read during the step.
            tokens: labels in the whole step, over all processes.
            progress: counters up to the step before; a step given up is counted there.

        Raises:
            NumericError, OutOfMemoryError: the weights are those before the step.
        """
        batches = [batch for _, batch in window]
        with explained_out_of_memory(progress.step + 1, batches):
            sums, readouts = self._grader.learn(self._student, batches, rows, tokens)
            norm = clip(self._accelerator, self._trained(), self._config)
            kd, ce, hidden, attention, router, grad_norm = numbers([*(sum_over_ranks(sums) / tokens), norm])
        learning_rate = float(self._optimizer.param_groups[0]["lr"])
        loss, scaler = self._grader.weigh(kd, ce, hidden, attention, router), self._accelerator.scaler
        # An fp16 overflow of the gradient is GradScaler's to handle: it skips the step and halves its scale, until that
        # is 1 and nothing more can be gained.
        is_overflow = scaler is not None and isfinite(loss) and not isfinite(grad_norm) and scaler.get_scale() > 1
        if not is_overflow and not self._nonfinite.allows(loss, grad_norm, window, progress):
            self._optimizer.zero_grad()
            if scaler is not None:
                scaler.update()  # clipping has unscaled the gradients, which GradScaler allows once per update
            return None
        with explained_out_of_memory(progress.step + 1, batches):
            ranks().at("optimizer")
            self._optimizer.step()
        self._schedule(loss)
        self._optimizer.zero_grad()
        return StepTaken(loss, kd, ce, hidden, attention, router, grad_norm, learning_rate, readouts)

    def _trained(self) -> list[nn.Parameter]:
        """The student's parameters, and the layer matcher's projections while they are trained with it."""
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _schedule(self, loss: float) -> None:
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)
        elif self._scheduler is not None and not self._accelerator.optimizer_step_was_skipped:
            try:
                self._scheduler.step()
            except ValueError as error:  # OneCycleLR: it was made for fewer steps
                fix = "make the scheduler for all steps of the run, and one more"
                raise ConfigError("the scheduler has no rate for the next step", got=str(error), fix=fix) from error
