"""Benchmark of float32 matrix products: oneDNN at full vector width against torch's own, by shape and in steps.

    python -m benchmarks.micro.products

Usual and full width in turn, CPU time, one thread, into room that is there already. A kernel's making is what the first
product of a shape takes longer than the next ones; oneDNN keeps the last 1,024 of them.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from apt_model.models.wide_matmul import full_width, gains, product_of
from benchmarks.markdown import grid
from benchmarks.rounds import lap
from benchmarks.sizes import SIZES, make_batch, make_pair
from benchmarks.step.contenders import OursFused, at_full_width
from benchmarks.step.objective import as_usual
from benchmarks.step.worker import take_step

SHAPES = [(640, 128, 256), (2_048, 256, 512), (256, 256, 50_257), (256, 128, 151_936)]  # rows, in, out
LENGTHS = [("demo", 40), ("demo", 200), ("S", 128)]  # size, the longest batch
REPEATS, STEPS = 7, 40


def layouts(rows: int, width: int, columns: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The three products of a linear layer: both sides of each."""
    inputs, weight, outer = torch.randn(rows, width), torch.randn(columns, width), torch.randn(rows, columns)
    return {"forward": (inputs, weight.t()), "to the input": (outer, weight), "to the weight": (outer.t(), inputs)}


def by_shape() -> str:
    """Speed of the three products of a layer, and what a new shape costs."""
    rows = []
    for shape in SHAPES:
        for name, (left, right) in layouts(*shape).items():
            work, out = 2 * left.numel() * right.shape[1], torch.zeros(len(left), right.shape[1])
            turn = partial(torch.mm, left, right, out=out)
            usual = min(lap(turn).cpu for _ in range(REPEATS))
            with full_width(), product_of(left, right):
                first, *more = [lap(turn).cpu for _ in range(REPEATS)]
            speeds = [f"{work / least / 1e9:.0f}" for least in (usual, min(more))]
            rows.append(["×".join(map(str, shape)), name, *speeds, f"{1e3 * (first - statistics.median(more)):.1f}"])
    return grid(["rows × in × out", "product", "usual, GF/s", "full width, GF/s", "a kernel's making, ms"], rows)


def by_length() -> str:
    """Steps over batches of random lengths and over batches of one length, the first of each shape included."""
    rows = []
    for name, longest in LENGTHS:
        size = SIZES[name]
        drawn = torch.randint(8, longest + 1, (STEPS,), generator=torch.Generator().manual_seed(1)).tolist()
        for said, lengths in ((f"8 to {longest}, drawn", drawn), (f"{longest}", [longest] * STEPS)):
            pair = make_pair(size, dtype=torch.float32)
            loss_of, spent = OursFused(pair), dict.fromkeys((as_usual, at_full_width), 0.0)
            take_step(loss_of, pair, make_batch(replace(size, length=4)), as_usual)
            for turn, length in enumerate(lengths):
                batch = make_batch(replace(size, length=length))
                for products in list(spent)[:: 1 if turn % 2 else -1]:
                    spent[products] += lap(partial(take_step, loss_of, pair, batch, products)).cpu
            usual, wide = spent.values()
            rows.append([name, said, f"{1e3 * usual / STEPS:.0f}", f"{1e3 * wide / STEPS:.0f}", f"{wide / usual:.2f}"])
    return grid(["size", "tokens a row", "usual, ms a step", "full width, ms a step", "ratio"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Both tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not gains():
        print("this CPU gains nothing: torch's own products are used")
    for table in (by_shape(), by_length()):
        print(table)


if __name__ == "__main__":
    main()
