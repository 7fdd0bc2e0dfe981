"""Command line of the step benchmark: CPU time and peak memory of each loss implementation, over a common floor.

    python -m benchmarks.step                                    # or: make bench
    python -m benchmarks.step --contenders all --dtypes fp32 bf16 --minutes 120
    python -m benchmarks.step --scaling                          # curves over batch × length and over the vocabulary
    python -m benchmarks.step --profile                          # what the time of ours-fused is made of
    python -m benchmarks.step --redraw                           # tables and plots again from the last figures

One process a size and allocator runs all contenders in turn; one process a contender and size measures its memory; one
checks that each computes what it says. Prints Markdown; writes it, the raw figures and plots to `--out`. How to read
them: README.md here.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import apt_model
from benchmarks.sizes import CURVES, SIZES
from benchmarks.step import plots, tables, worker
from benchmarks.step.worker import CONTENDERS, DTYPES, Job, Result

ALLOCATORS = {  # environment of a process
    "glibc": {},
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "200000000000"},
}
USUAL = [
    "floor",
    "floor-full-width",
    "plain",
    "ours-fused",
    "ours-fused-usual",
    "ours-written",
    "ours-cached",
    "torchtune-compiled",
    "liger-256-compiled",
    "modelopt",
]
CURVED = ["floor", "plain", "ours-fused", "liger-256-compiled"]
QUIET = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONWARNINGS": "ignore"}


def run(job: Job, allocator: str = "glibc") -> Result:
    """The job's result, from a process of its own."""
    print(
        f"… {job.kind}, {job.size or 'small batch'}, {allocator}: {' '.join(job.contenders)}",
        file=sys.stderr,
        flush=True,
    )
    threads = str(job.threads)
    environment = os.environ | QUIET | ALLOCATORS[allocator] | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", worker.__name__, json.dumps(asdict(job))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"killed by signal {-done.returncode}"])[-1]
        return Result(failed={f"{name} {dtype}": said for name in job.contenders for dtype in job.dtypes})
    return Result.parse(done.stdout.strip().splitlines()[-1])


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
    ]
    packages = {CONTENDERS[name].package for name in arguments.contenders} | {"torch", "transformers"}
    versions = {"apt-model": apt_model.__version__}
    for package in sorted(packages - {"apt-model"}):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = torch.cuda.get_device_name() if arguments.device != "cpu" else names[0] if names else platform.processor()
    return {
        "device": f"{device}, {platform.machine()}, {os.cpu_count()} cores",
        "threads": arguments.threads,
        "load": round(os.getloadavg()[0], 1),
        "versions": versions | {"Python": platform.python_version()},
    }


def cells(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every measurement of the table, as it is done."""
    common = {"threads": arguments.threads, "device": arguments.device}
    yield {"kind": "check", **asdict(run(Job(kind="check", contenders=arguments.contenders)))}
    pairs = list(itertools.product(arguments.sizes, arguments.allocators))
    seconds = arguments.minutes * 60 / (3 * len(pairs))  # starting, warming up and the memory take the rest
    for size, allocator in pairs:
        job = Job(
            kind="time",
            contenders=arguments.contenders,
            size=SIZES[size],
            dtypes=arguments.dtypes,
            rounds=arguments.rounds,
            seconds=seconds,
            **common,
        )
        yield {"kind": "time", "size": size, "allocator": allocator, **asdict(run(job, allocator))}
    for size, dtype, name in itertools.product(arguments.sizes, arguments.dtypes, arguments.contenders):
        job = Job(kind="memory", contenders=[name], size=SIZES[size], dtypes=[dtype], rounds=2, **common)
        yield {"kind": "memory", "size": size, **asdict(run(job))}


def points(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every point of the curves: time and memory from one process, fp32."""
    for axis, sizes in CURVES.items():
        for (value, size), name in itertools.product(sizes, arguments.contenders):
            job = Job(
                kind="memory",
                contenders=[name],
                size=size,
                rounds=min(arguments.rounds, 3),
                threads=arguments.threads,
                device=arguments.device,
            )
            yield {"kind": "point", "axis": axis, "value": value, **asdict(run(job))}


def profiles(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the steps are made of, with an allocator that keeps its pages."""
    for size, dtype, name in itertools.product(arguments.sizes, arguments.dtypes, arguments.contenders):
        job = Job(
            kind="profile",
            contenders=[name],
            size=SIZES[size],
            dtypes=[dtype],
            rounds=arguments.rounds,
            threads=arguments.threads,
        )
        yield {"kind": "profile", "size": size, "key": f"{name} {dtype}", **asdict(run(job, "kept"))}


VIEWS = {  # name: how it is measured, told, drawn; who is in it
    "step": (cells, tables.step, plots.step, USUAL),
    "scaling": (points, tables.scaling, plots.scaling, CURVED),
    "profile": (profiles, tables.profile, None, ["ours-fused"]),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["S", "M", "V"])
    parser.add_argument("--contenders", nargs="+", choices=[*CONTENDERS, "all"], help=f"default: {' '.join(USUAL)}")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32"], help="bf16: weights, optimizer, all")
    parser.add_argument("--allocators", nargs="+", choices=ALLOCATORS, default=list(ALLOCATORS))
    parser.add_argument("--rounds", type=int, default=5, help="at most; default 5")
    parser.add_argument("--minutes", type=float, default=12, help="a third of them is for the rounds; default 12")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--scaling", dest="view", action="store_const", const="scaling", default="step", help="curves")
    parser.add_argument("--profile", dest="view", action="store_const", const="profile", help="what a step is made of")
    parser.add_argument("--redraw", action="store_true", help="measure nothing, read --out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    arguments = parser.parse_args(argv)
    arguments.contenders = arguments.contenders or list(VIEWS[arguments.view][-1])
    if "all" in arguments.contenders:
        arguments.contenders = list(CONTENDERS)
    if arguments.view != "profile":
        arguments.contenders = list(dict.fromkeys(["floor", *arguments.contenders]))
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write, draw."""
    arguments = parse(argv)
    measure, tell, draw, _ = VIEWS[arguments.view]
    raw = arguments.out / f"{arguments.view}.json"
    if not arguments.redraw:
        arguments.out.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {"machine": machine(arguments), "cells": []}
        for cell in measure(arguments):
            found["cells"].append(cell)
            raw.write_text(json.dumps(found), "utf-8")  # a run that is cut short leaves what it has
    found = json.loads(raw.read_text("utf-8"))
    text = tell(found)
    raw.with_suffix(".md").write_text(text, "utf-8")
    print(text)
    if draw is not None:
        draw(found, raw.with_suffix(".png"))


if __name__ == "__main__":
    main()
