"""What do checks and checkpoints cost? A step with them over one without, and a save against `torch.save`.

    python -m benchmarks.checkpointing

Step: the same lesson in blocks, with a run directory (checkpoints at the defaults: at the epoch's end; record, lock,
signals, generators kept) and without one, one after the other in an order that turns, CPU time, threads pinned. The
save at the block's end is timed by itself and taken off. Save: one checkpoint of model, AdamW's state and generators
against `torch.save` of the same state and `torch.save` followed by fsync; hashing is timed by itself. Prints Markdown.
"""

import argparse
import hashlib
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from apt_model.distill import checkpoints
from apt_model.plugins.distillation_plugin import DistillationPlugin
from benchmarks.overhead import SIZES, llama

KEPT = checkpoints.Checkpoints.save


def steps_of(size: str, rounds: int, steps: int, root: Path) -> dict[str, list[float]]:
    """CPU seconds a step, saves taken off, of a run with a directory, of one without, and of that again."""
    vocabulary, teacher_size, student_size, (rows, length) = SIZES[size]
    torch.manual_seed(0)
    teacher, student = llama(vocabulary, *teacher_size), llama(vocabulary, *student_size)
    batches = [torch.randint(vocabulary, (rows, length)) for _ in range(steps)]
    saves: list[float] = []

    def timed(self: Any, *args: Any, **more: Any) -> None:
        started = time.process_time()
        KEPT(self, *args, **more)
        saves.append(time.process_time() - started)

    def run(directory: Path | None) -> float:
        saves.clear()
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
        more = {"optimizer": optimizer, "num_epochs": 1, "device": "cpu", "sinks": [], "run_dir": directory}
        started = time.process_time()
        DistillationPlugin({}).distill_model(student, teacher, batches, **more)
        seconds = time.process_time() - started - sum(saves)
        if directory is not None:
            shutil.rmtree(directory)
        return seconds / steps

    checkpoints.Checkpoints.save = timed  # type: ignore[method-assign]
    contenders: dict[str, Path | None] = {"without": None, "with": root / "run", "without again": None}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        names = list(contenders)
        for name in names[turn % 3 :] + names[: turn % 3]:
            one = run(contenders[name])
            if turn:
                seconds[name].append(one)
    checkpoints.Checkpoints.save = KEPT  # type: ignore[method-assign]
    return seconds


def save_of(size: str, rounds: int, root: Path) -> dict[str, float]:
    """Milliseconds by the wall of one save, and of `torch.save` of as much; the median."""
    from apt_model.config import TrainConfig
    from apt_model.distill.progress import Progress

    vocabulary, _, student_size, _ = SIZES[size]
    student = llama(vocabulary, *student_size)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    student(input_ids=torch.ones(1, 4).long()).logits.sum().backward()
    optimizer.step()
    state = checkpoints.RunState(
        student=student,
        optimizer=optimizer,
        progress=Progress(step=1, epoch=1),
        others={},
        identity={},
        device=torch.device("cpu"),
        loader=[],
    )
    keeper = checkpoints.Checkpoints(root / "save", TrainConfig())
    plain = root / "plain.pt"

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

    kinds: dict[str, Callable[[], None]] = {
        "torch.save": torch_save,
        "torch.save, fsync": synced,
        "ours": ours,
        "of it hashing": hashing,
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, action in kinds.items():
            started = time.perf_counter()
            action()
            times[name].append(1000 * (time.perf_counter() - started))
    return {"MB": plain.stat().st_size / 1e6} | {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}, {arguments.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        print("| size | ms a step without | with / without (quartiles) | without / itself |\n|---|---|---|---|")
        for size in arguments.sizes:
            seconds = steps_of(size, arguments.rounds, 40 if size == "demo" else 4, root)
            pairs = list(zip(seconds["without"], seconds["without again"], strict=True))
            base = [(one + two) / 2 for one, two in pairs]
            low, middle, high = statistics.quantiles(
                [one / plain for one, plain in zip(seconds["with"], base, strict=True)], n=4
            )
            noise = statistics.median(two / one for one, two in pairs)
            spread = f"{middle:.3f} ({low:.3f} to {high:.3f})"
            print(f"| {size} | {1000 * statistics.median(base):.1f} | {spread} | {noise:.3f} |", flush=True)
        print()
        for index, size in enumerate(arguments.sizes):
            found = save_of(size, arguments.rounds, root)
            if not index:
                print(f"| size | {' | '.join(found)} |\n{'|---' * (len(found) + 1)}|")
            print(f"| {size} | {' | '.join(f'{value:.1f}' for value in found.values())} |", flush=True)


if __name__ == "__main__":
    main()
