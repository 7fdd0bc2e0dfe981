"""One job of the step benchmark in a process of its own: agreement, time, peak memory or profile.

    python -m benchmarks.step.worker '{"kind": "time", ...}'

`benchmarks.step` starts it, with threads and allocator set in its environment. The last line it prints is the result as
JSON. A contender that fails is reported with its exception's first line.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Literal

import torch
from torch import Tensor

from benchmarks.machine import cuda_peak_mib, peak_mib
from benchmarks.rounds import Lap, interleaved, lap
from benchmarks.sizes import Pair, Size, make_batch, make_pair
from benchmarks.step.breakdown import breakdown, profiled
from benchmarks.step.contenders import OURS, Contender
from benchmarks.step.objective import LossFunction, Products, disagreement
from benchmarks.step.peers import PEERS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CONTENDERS = {contender.name: contender for contender in OURS + PEERS}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure.

    Attributes:
        kind: the objective's check, the time of all contenders in turn, or the peak memory or the profile of the only
            one.
        contenders: names.
        size: of the models; none for the check, which has its own.
        dtypes: "fp32", "bf16" or both.
        rounds: laps of each, after one that warms up.
        seconds: after which no further round of the timing is begun.
        threads: of torch.
        device: where; memory is measured on the CPU of a Linux, or on a CUDA device.
    """

    kind: Literal["check", "time", "memory", "profile"]
    contenders: Sequence[str]
    size: Size | None = None
    dtypes: Sequence[str] = ("fp32",)
    rounds: int = 1
    seconds: float = inf
    threads: int = 1
    device: str = "cpu"

    @classmethod
    def parse(cls, text: str) -> "Job":
        """From the JSON of a job's dict."""
        fields = json.loads(text)
        if fields["size"] is not None:
            fields["size"] = Size.parse(fields["size"])
        return cls(**fields)


@dataclass(kw_only=True)
class Result:
    """What came of a job; keys of `laps`, `peak` and `rest` are `contender dtype`, of the others names too.

    Attributes:
        errors: of loss and gradient, relative, of each contender checked.
        laps: one a round.
        peak: MiB above rest that the process needed at most during a step.
        shares: of a step's time, by kind of operation.
        failed: why a contender is missing.
    """

    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    laps: dict[str, list[Lap]] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Result":
        """From what a worker prints."""
        fields = json.loads(text)
        laps = {key: [Lap(**one) for one in laps] for key, laps in fields["laps"].items()}
        return cls(**fields | {"laps": laps})


def first_line(error: Exception) -> str:
    """What to say of a failure, in a table's cell."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:160].replace("|", "/")


def take_step(loss_of: LossFunction, pair: Pair, batch: tuple[Tensor, Tensor], products: Products) -> None:
    """One optimizer step, complete."""
    with products(pair):
        loss_of(*batch).backward()
    pair.optimizer.step()
    pair.optimizer.zero_grad()


def stepper(contender: Contender, loss_of: LossFunction, pair: Pair, size: Size, device: str) -> Callable[[], None]:
    """A contender's step on the batch of that size, until the device has done it."""
    batch = make_batch(size, device=device)

    def step() -> None:
        take_step(loss_of, pair, batch, contender.products)
        if device != "cpu":
            torch.accelerator.synchronize()

    return step


def warm_up(name: str, step: Callable[[], None]) -> None:
    """Leave to an untimed step what happens once; what is compiled may compile anew, in general form, at the second."""
    for _ in range(3 if "compiled" in name else 1):
        step()


def check(job: Job) -> Result:
    """Whether each contender computes what it says."""
    result = Result()
    for name in job.contenders:
        contender = CONTENDERS[name]
        try:
            result.errors[name] = disagreement(contender.build, contender.objective, contender.products)
        except Exception as error:  # noqa: BLE001 - another library may fail in any way: it is listed, the run goes on
            result.failed[name] = first_line(error)
    return result


def time_steps(job: Job) -> Result:
    """Laps of every contender in every dtype, interleaved."""
    assert job.size is not None
    result, turns = Result(), {}
    for dtype in job.dtypes:
        pair = make_pair(job.size, dtype=DTYPES[dtype], device=job.device)
        for name in job.contenders:
            try:
                contender = CONTENDERS[name]
                step = stepper(contender, contender.build(pair), pair, job.size, job.device)
                warm_up(name, step)
            except Exception as error:  # noqa: BLE001 - as above
                result.failed[f"{name} {dtype}"] = first_line(error)
                pair.optimizer.zero_grad()
                continue
            turns[f"{name} {dtype}"] = step
    turns["floor again"] = turns[f"floor {job.dtypes[0]}"]  # how much of a ratio is noise
    result.laps = interleaved(turns, job.rounds, seconds=job.seconds)
    return result


def peak_memory(job: Job) -> Result:
    """The most that a step needs above what the process holds between steps; after a step that warms up.

    What a contender itself keeps from step to step, and says so, is counted as needed.
    """
    assert job.size is not None
    (name,), (dtype,) = job.contenders, job.dtypes
    result, key = Result(), f"{name} {dtype}"
    try:
        pair = make_pair(job.size, dtype=DTYPES[dtype], device=job.device)
        loss_of = CONTENDERS[name].build(pair)
        step = stepper(CONTENDERS[name], loss_of, pair, job.size, job.device)
        warm_up(name, step)
        laps = result.laps[key] = []
        measured = peak_mib if job.device == "cpu" else cuda_peak_mib
        peak = measured(lambda: laps.extend(lap(step) for _ in range(job.rounds)))
        result.peak[key] = peak + getattr(loss_of, "bytes_kept", 0) / 2**20
    except Exception as error:  # noqa: BLE001 - as above
        result.failed[key] = first_line(error)
    return result


def profile(job: Job) -> Result:
    """What the contender's step is made of."""
    assert job.size is not None
    (name,), (dtype,) = job.contenders, job.dtypes
    result = Result()
    try:
        pair = make_pair(job.size, dtype=DTYPES[dtype], device=job.device)
        contender = CONTENDERS[name]
        step = stepper(contender, contender.build(pair), pair, job.size, job.device)
        result.laps = breakdown(step, contender, pair, job.size, job.rounds)
        result.shares = profiled(step)
    except Exception as error:  # noqa: BLE001 - as above
        result.failed[f"{name} {dtype}"] = first_line(error)
    return result


KINDS: dict[str, Callable[[Job], Result]] = {
    "check": check,
    "time": time_steps,
    "memory": peak_memory,
    "profile": profile,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Do the job of the command line."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Job.parse, help="as JSON")
    job: Job = parser.parse_args(argv).job
    torch.set_num_threads(job.threads)
    print("\n" + json.dumps(asdict(KINDS[job.kind](job))), flush=True)


if __name__ == "__main__":
    main()
