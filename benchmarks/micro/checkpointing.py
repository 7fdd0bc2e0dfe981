"""Benchmark of checks and checkpoints: a step with them over one without, and a save against `torch.save`.

    python -m benchmarks.micro.checkpointing --sizes S --steps 60    # alone on the machine: some five minutes

Step: four lessons of the same models on the same batches, a step of each in turn, in an order that turns: `bare` has
neither run directory nor checks (batches looked at, numbers finite), twice, for the noise; `checks` has the checks;
`all` has a run directory too, with checkpoints at the defaults (at the epoch's end), record, lock and what watches the
loss. Each lesson has a thread, and only one runs at a time; CPU time of that thread, torch on one thread. The save at
the end of the epoch is not in a step. A ratio is a step's time over the mean of both bare steps of its round; reported
are the median, and the 95 % interval of it over 10,000 resamples of the rounds. Save: one checkpoint of model, AdamW's
state and generators against `torch.save` of the same state and `torch.save` followed by fsync; hashing is timed by
itself. Prints Markdown.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apt_model.config.sections import TrainConfig
from apt_model.data.data_state import DataState
from apt_model.distill.checkpoints import manager
from apt_model.distill.checkpoints.progress import Progress
from apt_model.distill.grader import Grader
from apt_model.distill.nonfinite import NonFinite
from apt_model.plugins.distillation_plugin import DistillationPlugin
from benchmarks.machine import heading
from benchmarks.markdown import head, row
from benchmarks.rounds import spread
from benchmarks.sizes import SIZES, make_pair

LESSONS = ("bare", "bare again", "checks", "all")
WARM_UP = 3  # rounds that do not count


class Turns:
    """Lets lessons in threads take one step each in turn; in each round another one is the first."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names, self._changed = names, threading.Condition()
        self._waiting: set[str] = set()
        self._done: list[str] = []
        self._round = 0
        self._over, self._ended = threading.Event(), set[str]()

    def _order(self) -> list[str]:
        start = self._round % len(self._names)
        return [*self._names[start:], *self._names[:start]]

    def batches(self, name: str, batches: list[Any], seconds: list[float]) -> Iterator[Any]:
        """The batches, each when it is this lesson's turn; a step's time of this thread goes to `seconds`.

        They end when the lessons that began later are over.
        """
        for batch in batches:
            self._wait(name)
            started = time.thread_time()
            yield batch
            seconds.append(time.thread_time() - started)
            self._hand_on(name)
        later = set(self._names[self._names.index(name) + 1 :])
        with self._changed:
            self._changed.wait_for(lambda: later <= self._ended or self._over.is_set())

    def run(self, lesson: Callable[[str], None]) -> None:
        """All lessons, each in a thread, begun one after the other and ended in the opposite order: each leaves what
        accelerate shares in a process as it has found it.

        Raises:
            BaseException: the first that ended a lesson; the others are let go.
        """
        failed: list[BaseException] = []

        def guarded(name: str) -> None:
            try:
                lesson(name)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)
                self._over.set()
            with self._changed:
                self._ended.add(name)
                self._changed.notify_all()

        threads = [threading.Thread(target=guarded, args=[name]) for name in self._names]
        for name, thread in zip(self._names, threads, strict=True):
            thread.start()
            with self._changed:
                self._changed.wait_for(lambda name=name: name in self._waiting | self._ended)
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def _wait(self, name: str) -> None:
        with self._changed:
            self._waiting.add(name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_next(name) or self._over.is_set())
            if self._over.is_set():
                raise RuntimeError(f"{name} ends, because another lesson has failed")

    def _is_next(self, name: str) -> bool:
        """Whether all have come, and it is this one's turn."""
        have_come = len(self._waiting | set(self._done)) == len(self._names)
        return have_come and self._order()[len(self._done)] == name

    def _hand_on(self, name: str) -> None:
        with self._changed:
            self._waiting.discard(name)
            self._done.append(name)
            if len(self._done) == len(self._names):
                self._done, self._round = [], self._round + 1
            self._changed.notify_all()


def steps_of(size: str, steps: int, root: Path) -> dict[str, list[float]]:
    """CPU seconds of each step of each lesson."""
    shape, turns, here = SIZES[size], Turns(LESSONS), threading.local()
    batches = [torch.randint(shape.vocabulary, (shape.rows, shape.length)) for _ in range(steps + WARM_UP)]
    seconds: dict[str, list[float]] = {name: [] for name in LESSONS}
    checked, allowed = Grader.check, NonFinite.allows

    def check(self: Any, batch: Any) -> None:
        if not here.bare:
            checked(self, batch)

    def allows(self: Any, *step: Any) -> bool:
        return here.bare or allowed(self, *step)

    def lesson(name: str) -> None:
        here.bare = name.startswith("bare")
        pair = make_pair(shape, dtype=torch.float32)
        DistillationPlugin({}).distill_model(
            pair.student,
            pair.teacher,
            turns.batches(name, batches, seconds[name]),
            pair.optimizer,
            num_epochs=1,
            device="cpu",
            sinks=[],
            run_dir=root / f"run-{size}" if name == "all" else None,
        )

    Grader.check, NonFinite.allows = check, allows  # type: ignore[method-assign]
    try:
        turns.run(lesson)
    finally:
        Grader.check, NonFinite.allows = checked, allowed  # type: ignore[method-assign]
    return {name: own[WARM_UP:] for name, own in seconds.items()}


def interval(ratios: list[float]) -> str:
    """The median, and where 95 % of its resamples lie."""
    resamples = np.random.default_rng(0).choice(ratios, size=(10_000, len(ratios)))
    low, high = np.quantile(np.median(resamples, axis=1), [0.025, 0.975])
    return f"{statistics.median(ratios):.4f} ({low:.4f} to {high:.4f})"


def ways_to_save(size: str, root: Path, plain: Path) -> dict[str, Callable[[], None]]:
    """A checkpoint of ours below `root`, and as much by `torch.save` into the file `plain`."""
    pair = make_pair(SIZES[size], dtype=torch.float32)
    student, optimizer = pair.student, pair.optimizer
    student(input_ids=torch.ones(1, 4).long()).logits.sum().backward()
    optimizer.step()
    state = manager.RunState(
        student=student,
        optimizer=optimizer,
        progress=Progress(step=1, epoch=1),
        others={},
        identity={},
        device=torch.device("cpu"),
        data=DataState([]),
    )
    keeper = manager.Checkpoints(root, TrainConfig())

    def torch_save() -> None:
        torch.save({"model": student.state_dict(), "optimizer": optimizer.state_dict()}, plain)

    def synced() -> None:
        torch_save()
        descriptor = os.open(plain, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def ours() -> None:
        state.progress.step += 1
        keeper.save(state)

    def hashing() -> None:
        with plain.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    return {"torch.save": torch_save, "torch.save, fsync": synced, "ours": ours, "of it hashing": hashing}


def save_of(size: str, rounds: int, root: Path) -> dict[str, float]:
    """Milliseconds by the wall of one save, and of `torch.save` of as much; the median."""
    root.mkdir()
    plain = root / "plain.pt"
    kinds = ways_to_save(size, root, plain)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, action in kinds.items():
            started = time.perf_counter()
            action()
            times[name].append(1000 * (time.perf_counter() - started))
    return {"MB": plain.stat().st_size / 1e6} | {name: statistics.median(found) for name, found in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="saves")
    parser.add_argument("--steps", type=int, default=60, help="of each lesson")
    parser.add_argument("--sizes", nargs="+", default=["demo", "S"], choices=list(SIZES))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{heading()}, {arguments.steps} steps each\n")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        others = LESSONS[1:]
        print(head(["size", "bare, ms a step (quartiles)", *(f"{name} / bare" for name in others)]))
        for size in arguments.sizes:
            seconds = steps_of(size, arguments.steps, root)
            bare = [(one + two) / 2 for one, two in zip(seconds["bare"], seconds["bare again"], strict=True)]
            ratios = [[step / base for step, base in zip(seconds[name], bare, strict=True)] for name in others]
            print(row([size, spread([1000 * base for base in bare], digits=1), *map(interval, ratios)]), flush=True)
        print()
        for index, size in enumerate(arguments.sizes):
            found = save_of(size, arguments.rounds, root / size)
            if not index:
                print(head(["size", *found]))
            print(row([size, *(f"{value:.1f}" for value in found.values())]), flush=True)


if __name__ == "__main__":
    main()
