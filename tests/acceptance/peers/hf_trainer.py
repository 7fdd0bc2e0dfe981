"""What HF Trainer does under a fault. Each case works in a directory of its own and says in words what happened."""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.acceptance.peers.toys import ROWS, attempt, finite, forked, losses, toy


class Hook(TrainerCallback):
    """Does something once a step has been taken."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The hook of the trainer."""
        if state.global_step == self.step:
            self.action()


class Stop(TrainerCallback):
    """Ends a training after step 4, as its schedule for eight steps has it there."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The hook of the trainer."""
        if state.global_step == 4:
            control.should_training_stop = True


def trainer(out: Path, *callbacks: TrainerCallback, rows: Any = ROWS, model: Any = None, **more: Any) -> Trainer:
    """HF's, on the CPU, eight steps, a checkpoint after every second."""
    how = {"per_device_train_batch_size": 2, "max_steps": 8, "save_steps": 2, "logging_steps": 1, "use_cpu": True}
    how |= {"report_to": [], "disable_tqdm": True, "seed": 0, "learning_rate": 0.01, "remove_unused_columns": False}
    arguments = TrainingArguments(str(out / "out"), **how | more)
    return Trainer(model or toy(), arguments, train_dataset=rows, callbacks=list(callbacks))


def same(one: Any, other: Any) -> bool:
    """Whether two models have equal weights."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def resumed(out: Path, **more: Any) -> tuple[str, Trainer]:
    """Go on from the newest checkpoint."""
    one = trainer(out, **more)
    return attempt(lambda: one.train(resume_from_checkpoint=True)), one


def checkpoints(out: Path) -> list[str]:
    """What lies there."""
    return sorted(path.name for path in (out / "out").glob("*checkpoint*"))


def nan_loss(out: Path) -> str:
    """10."""
    model = toy()
    model.nan_from = 3
    one = trainer(out, model=model)
    ended = attempt(one.train)
    return f"{ended}; logged losses from the third on {losses(one)[2:5]}; weights finite: {finite(model)}"


def spoiled(out: Path, spoil: Callable[[Path], None]) -> str:
    """A run to step 4, its checkpoint spoiled, then gone on with to 8."""
    whole = trainer(out / "whole")
    whole.train()
    trainer(out, Stop()).train()
    spoil(out / "out" / "checkpoint-4")
    ended, one = resumed(out)
    return f"{ended}; final weights those of the run never broken off: {same(one.model, whole.model)}"


def untouched(out: Path) -> str:
    """2: nothing spoiled, to have something to compare with."""
    return spoiled(out, lambda _: None)


def truncated(out: Path) -> str:
    """7."""

    def cut(path: Path) -> None:
        file = path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    return spoiled(out, cut)


def flipped(out: Path) -> str:
    """7."""

    def flip(path: Path) -> None:
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-3] ^= 64
        (path / "model.safetensors").write_bytes(content)

    return spoiled(out, flip)


def no_optimizer(out: Path) -> str:
    """8."""
    return spoiled(out, lambda path: [file.unlink() for file in (*path.glob("optimizer*"), *path.glob("rng_state*"))])


def absurd_step(out: Path) -> str:
    """30."""

    def write(path: Path) -> None:
        state = json.loads((path / "trainer_state.json").read_text())
        state["global_step"] = 10**15
        (path / "trainer_state.json").write_text(json.dumps(state))

    return spoiled(out, write)


def other_batch_size(out: Path) -> str:
    """29."""
    trainer(out, Stop()).train()
    return resumed(out, per_device_train_batch_size=4)[0]


def killed_in_save(out: Path) -> str:
    """4: after the weights, before the rest, in the second save."""

    def run() -> None:
        one, saves = trainer(out), []
        inner = one._save_optimizer_and_scheduler

        def save(place: str) -> None:
            saves.append(place)
            if len(saves) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            inner(place)

        one._save_optimizer_and_scheduler = save
        one.train()

    ended = forked(run)
    return f"killed ({ended}), left {checkpoints(out)}; resumed: {resumed(out)[0]}"


def disk_full(out: Path) -> str:
    """5: no file beyond 20 kB from step 3 on."""

    def run() -> None:
        limit = Hook(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
        said = attempt(trainer(out, limit).train)
        os.write(1, b"")
        (out / "said").write_text(said[:150])
        sys.exit(0 if said.startswith("no error") else 1)

    ended = forked(run)
    return f"exit {ended}: {(out / 'said').read_text()}; left {checkpoints(out)}; resumed: {resumed(out)[0]}"


def by_signal(out: Path, number: int) -> str:
    """Sent after step 3; checkpoints are due at even steps."""
    ended = forked(lambda: trainer(out, Hook(3, lambda: os.kill(os.getpid(), number))).train())
    return f"ended with {ended}; checkpoints {checkpoints(out)}, none of step 3"


def sigterm(out: Path) -> str:
    """23."""
    return by_signal(out, signal.SIGTERM)


def sigint(out: Path) -> str:
    """24."""
    return by_signal(out, signal.SIGINT)


def all_ignored(out: Path) -> str:
    """15."""
    one = trainer(out, rows=[{**row, "labels": [-100] * 4} for row in ROWS])
    ended = attempt(one.train)
    return f"{ended}; logged losses {losses(one)[:2]}; weights finite: {finite(one.model)}"


def empty_data(out: Path) -> str:
    """35."""
    return attempt(lambda: trainer(out, rows=[]).train())


def no_epochs(out: Path) -> str:
    """38."""
    found = []
    for more in ({"max_steps": 0, "num_train_epochs": 3}, {"max_steps": -1, "num_train_epochs": 0}):
        one = trainer(out, **more)
        ended = attempt(one.train)
        found.append(f"{more}: {ended}, {one.state.global_step} steps")
    return "; ".join(found)


def two_writers(out: Path) -> str:
    """28: a second trainer begins in the same directory while the first is at step 3."""
    seen: list[str] = []
    trainer(out, Hook(3, lambda: seen.append(attempt(trainer(out).train)))).train()
    return f"the second: {seen[0]}"
