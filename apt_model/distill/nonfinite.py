"""Non-finite losses and gradients: clip gradients, and skip or stop before a NaN reaches a weight.

Knows what is wrong and which model caused it; knows nothing of how training goes on.
"""

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from apt_model.config.sections import TrainConfig
from apt_model.data.batch import Batch
from apt_model.distill.batches import Window
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.distill.checkpoints.progress import Progress
from apt_model.distill.grader import Grader
from apt_model.distill.reporter import Reporter
from apt_model.errors import NumericError
from apt_model.events.records import Notice
from apt_model.models.lockstep import Lockstep
from apt_model.models.sharding import whole


def clip(accelerator: Accelerator, parameters: Iterable[nn.Parameter], config: TrainConfig) -> Tensor:
    """Clip the gradients to `max_grad_norm`; returns their joint norm before clipping."""
    norm = accelerator.clip_grad_norm_(parameters, config.max_grad_norm or inf)
    assert isinstance(norm, Tensor)  # noqa: S101 - None only under DeepSpeed, which is not offered
    return whole(norm)


class NonFinite:
    """Checks loss and gradient norm of every step before the optimizer applies it.

    Args:
        config: `on_nonfinite` (stop or skip), and how many such steps in a row may be skipped.
        grader: finds which model caused it.
        report: is told the values.
        keeper: writes the batches to a file; None without a run directory.
        lockstep: for the look at a sharded teacher's logits.
    """

    def __init__(
        self, config: TrainConfig, *, grader: Grader, report: Reporter, keeper: Checkpoints | None, lockstep: Lockstep
    ) -> None:
        self._config, self._grader, self._report, self._keeper = config, grader, report, keeper
        self._lockstep = lockstep

    def allows(self, loss: float, grad_norm: float, window: Window, progress: Progress) -> bool:
        """Whether the step may be taken; False: it is to be skipped.

        Raises:
            NumericError: with the values, the model that caused them, and the file with the batches.
        """
        if isfinite(loss) and isfinite(grad_norm):
            return True
        step, (first, _), batches = progress.step + 1, window[0], [batch for _, batch in window]
        kept = _keep_batches(self._keeper.folder.parent, step, batches) if self._keeper else None
        values = {"step": step, "batch": first, "loss": str(loss), "norm": str(grad_norm)}
        self._report.tell(Notice, key="notice.nonfinite", values=values)
        progress.nonfinite_in_a_row += 1
        if self._config.on_nonfinite == "skip" and progress.nonfinite_in_a_row <= self._config.max_nonfinite:
            return False
        with self._lockstep():
            blame = self._grader.blame(batches)
        raise NumericError(
            f"step {step} (batch {first} of epoch {progress.epoch}) is not finite" + (f": {blame}" if blame else ""),
            got=f"loss {loss}, gradient norm {grad_norm}; the weights before it are kept",
            fix=f"inspect the step's batches: {kept}" if kept else "lower the learning rate, or inspect the batch",
        )


def _keep_batches(run_dir: Path, step: int, batches: Sequence[Batch]) -> Path | None:
    """Write the batches of a non-finite step to a safetensors file beside the run; None if that fails."""
    path = run_dir / f"nonfinite-step-{step:08}.safetensors"
    tensors = {
        f"{index}.{name}": getattr(batch, name).clone(memory_format=torch.contiguous_format)
        for index, batch in enumerate(batches)
        for name in ("input_ids", "attention_mask", "labels", "position_ids")
        if getattr(batch, name) is not None
    }
    try:
        save_file(tensors, path)
    except (OSError, SafetensorError):
        return None
    return path
