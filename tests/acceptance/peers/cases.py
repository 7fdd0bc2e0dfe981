"""The cases that peers are put through, by the number of the fault."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.peers import accelerate_states, hf_trainer, rich_console, trl_gkd


@dataclass(frozen=True)
class Case:
    """A peer under a fault.

    Attributes:
        number: of the fault, as in the matrix.
        who: the peer, and how the fault comes about where that is not plain.
        run: works in a directory, returns what happened in words.
    """

    number: int
    who: str
    run: Callable[[Path], str]


CASES: dict[str, Case] = {
    "untouched": Case(2, "HF Trainer, resumed from whole checkpoint", hf_trainer.untouched),
    "killed_in_save": Case(4, "HF Trainer", hf_trainer.killed_in_save),
    "disk_full": Case(5, "HF Trainer, EFBIG", hf_trainer.disk_full),
    "truncated": Case(7, "HF Trainer, truncated", hf_trainer.truncated),
    "flipped": Case(7, "HF Trainer, one bit", hf_trainer.flipped),
    "no_optimizer": Case(8, "HF Trainer, optimizer and generators gone", hf_trainer.no_optimizer),
    "accelerate_no_generators": Case(8, "accelerate, generators gone", accelerate_states.accelerate_no_generators),
    "accelerate_pickle": Case(9, "accelerate", accelerate_states.accelerate_pickle),
    "nan_loss": Case(10, "HF Trainer", hf_trainer.nan_loss),
    "gkd_teacher_nan": Case(11, "TRL GKD", trl_gkd.gkd_teacher_nan),
    "gkd_settings": Case(12, "TRL GKD", trl_gkd.gkd_settings),
    "all_ignored": Case(15, "HF Trainer", hf_trainer.all_ignored),
    "rich_escapes": Case(16, "rich", rich_console.rich_escapes),
    "sigterm": Case(23, "HF Trainer", hf_trainer.sigterm),
    "sigint": Case(24, "HF Trainer", hf_trainer.sigint),
    "two_writers": Case(28, "HF Trainer", hf_trainer.two_writers),
    "other_batch_size": Case(29, "HF Trainer", hf_trainer.other_batch_size),
    "absurd_step": Case(30, "HF Trainer", hf_trainer.absurd_step),
    "empty_data": Case(35, "HF Trainer", hf_trainer.empty_data),
    "gkd_empty": Case(35, "TRL GKD", trl_gkd.gkd_empty),
    "no_epochs": Case(38, "HF Trainer", hf_trainer.no_epochs),
    "rich_long_line": Case(52, "rich", rich_console.rich_long_line),
}
