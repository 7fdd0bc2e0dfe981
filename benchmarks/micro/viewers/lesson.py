"""Synthetic events for the load tests: a record as a training would write it, without a training."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from apt_model.events.cards import ScoredObservation
from apt_model.events.records import EpochFinished, StepDone
from apt_model.events.runfile import RunFile
from apt_model.events.tokens import TokenDetail

BACKLOG = 6_000  # steps recorded before the test, two megabytes: a viewer that reads nothing of them is stalled
POSITIONS = 64  # tokens of a card
STEPS_AN_EPOCH = 50_000


@contextmanager
def backlog() -> Iterator[tuple[Path, RunFile]]:
    """Context manager: a temporary run directory, and its record with BACKLOG steps in it."""
    with tempfile.TemporaryDirectory() as folder, closing(RunFile(Path(folder) / "run")) as file:
        for number in range(BACKLOG):
            file.emit(step(number))
        yield Path(folder) / "run", file


def _place(number: int) -> dict[str, int]:
    epoch, batch = divmod(number, STEPS_AN_EPOCH)
    return {"step": number, "epoch": 1 + epoch, "batch": batch}


def step(number: int) -> StepDone:
    """A step as the loop tells it; its loss falls and jitters."""
    loss = 6 / (1 + number / 1_000) + (number * 7_919 % 1_000) / 2_000
    numbers = {
        "loss": loss,
        "kd": loss * 1.234567,
        "ce": loss * 0.987654,
        "learning_rate": 1.23456789e-3 / (1 + number),
    }
    return StepDone(
        run_id="crowd", **_place(number), grad_norm=1.234567, tokens=640,
        step_seconds=0.0123456789, skipped_batches=0, **numbers,
    )  # fmt: skip


def card(number: int) -> ScoredObservation:
    """A card with all that is known of its tokens."""
    top = tuple((chr(0x4E00 + number % 5_000 + rank), round(0.5 / (rank + 1), 4)) for rank in range(5))
    letters = tuple(chr(0x4E00 + (number + at) % 20_000) for at in range(POSITIONS))
    kl = tuple(round((number * at) % 97 / 31, 4) for at in range(POSITIONS))
    detail = TokenDetail(
        teacher=letters, student=letters, kl_nats=kl, teacher_top=(top,) * POSITIONS, student_top=(top,) * POSITIONS,
        teacher_entropy=kl, student_entropy=kl,
    )  # fmt: skip
    text = "".join(letters)
    return ScoredObservation(
        run_id="crowd", **_place(number), loss=1.0, given="青铜器上",
        teacher_text=text, student_text=text, input_text=text, normalised_kl=0.5, agreement=0.5, tokens=POSITIONS,
        similarity=0.5, laziness=number * 31 % 1_000 / 1_000, light="yellow", topic="文化", remark="好", detail=detail,
    )  # fmt: skip


def epoch(number: int) -> EpochFinished:
    """A report card."""
    return EpochFinished(
        run_id="crowd", step=number, epoch=number // STEPS_AN_EPOCH, num_epochs=20, mean_loss=1.0, tokens=1,
        skipped_batches=0, seconds=1.0, samples=100, mean_laziness=0.5,
    )  # fmt: skip
