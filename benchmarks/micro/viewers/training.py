"""Benchmark of a training with its page open against one without: step time, and the server's share of a core."""

import asyncio
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from apt_model.plugins.distillation_plugin import DistillationPlugin
from benchmarks.markdown import head, row
from benchmarks.micro.viewers.site import listen, watched
from benchmarks.rounds import interleaved, spread
from benchmarks.sizes import SIZES, make_pair

TRAINED = {"demo": 50, "S": 15}  # steps a turn, by size


def measure_training(rounds: int) -> None:
    """The table of a training's steps, with one page open and without."""
    torch.set_num_threads(1)
    columns = ["size", "wall time, page open / not", "CPU time of the training", "server's CPU, share of one core"]
    print(head(columns))
    for size, steps in TRAINED.items():
        with tempfile.TemporaryDirectory() as folder:
            walls, cpus, shares = train_in_turn(size, rounds, steps, Path(folder))
        print(row([size, spread(walls, 3), spread(cpus, 3), f"{statistics.median(shares):.3f}"]), flush=True)


def train_in_turn(size: str, rounds: int, steps: int, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Ratios of wall and CPU time, a number a round; and what of a core the server took meanwhile."""
    shape, pair = SIZES[size], make_pair(SIZES[size], dtype=torch.float32)
    batches = [torch.randint(shape.vocabulary, (shape.rows, shape.length)) for _ in range(steps)]
    models = {"student_model": pair.student, "teacher_model": pair.teacher, "optimizer": pair.optimizer}
    lesson = {**models, "train_dataloader": batches, "num_epochs": 1, "device": "cpu", "sinks": []}
    shares: list[float] = []

    def train(run: str) -> None:
        shutil.rmtree(folder / run, ignore_errors=True)
        DistillationPlugin().distill_model(**lesson, run_dir=folder / run)

    with watched(folder / "seen") as site:

        def train_seen() -> None:
            before, wall = site.cpu_seconds(), time.perf_counter()
            train("seen")
            shares.append((site.cpu_seconds() - before) / (time.perf_counter() - wall))

        page = multiprocessing.get_context("spawn").Process(
            target=reconnecting, args=(site.port, f"/api/runs/{site.run}/events?from=0"), daemon=True
        )
        page.start()
        contenders: dict[str, Callable[[], None]] = {"alone": lambda: train("alone"), "seen": train_seen}
        for contender in contenders.values():
            contender()  # warms up
        shares.clear()
        laps = interleaved(contenders, rounds)
        page.kill()
        page.join()
    pairs = list(zip(laps["seen"], laps["alone"], strict=True))
    return [one.wall / other.wall for one, other in pairs], [one.cpu / other.cpu for one, other in pairs], shares


def reconnecting(port: int, path: str) -> None:
    """A page: it comes back whenever it is told that a record was begun anew, or is over."""
    while True:
        asyncio.run(listen(port, path, [], []))
        time.sleep(0.2)
