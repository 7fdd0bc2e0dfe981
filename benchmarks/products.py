"""What products over the CPU's full width gain: by their shape, and in steps whose batches are of a new length each.

    python -m benchmarks.products

Usual and full width in turn, CPU time, one thread, into room that is there already. A kernel's making is what the first
product of a shape takes longer than the next ones; oneDNN keeps the last 1,024 of them.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from apt_model.distill.products import full_width, gains, product_of
from benchmarks.contenders import OursFused, at_full_width
from benchmarks.objective import LossFunction, Products, as_usual
from benchmarks.sizes import SIZES, Pair, make_pair
from benchmarks.tables import grid

SHAPES = [(640, 128, 256), (2_048, 256, 512), (256, 256, 50_257), (256, 128, 151_936)]  # rows, in, out
LENGTHS = [("demo", 40), ("demo", 200), ("S", 128)]  # size, the longest batch
REPEATS, STEPS = 7, 40


def seconds(turn: Callable[[], object]) -> float:
    """CPU time of one turn."""
    started = time.process_time()
    turn()
    return time.process_time() - started


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
            usual = min(seconds(turn) for _ in range(REPEATS))
            with full_width(), product_of(left, right, right.shape[1]):
                first, *more = [seconds(turn) for _ in range(REPEATS)]
            speeds = [f"{work / least / 1e9:.0f}" for least in (usual, min(more))]
            rows.append(["×".join(map(str, shape)), name, *speeds, f"{1e3 * (first - statistics.median(more)):.1f}"])
    return grid(["rows × in × out", "product", "usual, GF/s", "full width, GF/s", "a kernel's making, ms"], rows)


def step(pair: Pair, loss_of: LossFunction, ids: Tensor, products: Products) -> None:
    """One optimizer step."""
    with products(pair):
        loss_of(ids, ids.clone()).backward()
    pair.optimizer.step()
    pair.optimizer.zero_grad()


def by_length() -> str:
    """Steps over batches of random lengths and over batches of one length, the first of each shape included."""
    rows = []
    for name, longest in LENGTHS:
        size = SIZES[name]
        drawn = torch.randint(8, longest + 1, (STEPS,), generator=torch.Generator().manual_seed(1)).tolist()
        for said, lengths in ((f"8 to {longest}, drawn", drawn), (f"{longest}", [longest] * STEPS)):
            pair = make_pair(size, dtype=torch.float32)
            loss_of, spent = OursFused(pair), dict.fromkeys((as_usual, at_full_width), 0.0)
            step(pair, loss_of, torch.zeros(size.rows, 4, dtype=torch.int64), as_usual)
            for turn, length in enumerate(lengths):
                ids = torch.randint(size.vocabulary, (size.rows, length))
                for products in list(spent)[:: 1 if turn % 2 else -1]:
                    spent[products] += seconds(partial(step, pair, loss_of, ids, products))
            usual, wide = spent.values()
            rows.append([name, said, f"{1e3 * usual / STEPS:.0f}", f"{1e3 * wide / STEPS:.0f}", f"{wide / usual:.2f}"])
    return grid(["size", "tokens a row", "usual, ms a step", "full width, ms a step", "ratio"], rows)


def main() -> None:
    """Both tables."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not gains():
        print("this CPU gains nothing: torch's own products are used")
    for table in (by_shape(), by_length()):
        print(table)


if __name__ == "__main__":
    main()
