"""Breakdown of a step's time: the models' bodies, the heads' matrix products, and the rest.

The first two are timed as replicas that do nothing else, so no loss implementation can take less than their sum;
torch's profiler says which operations the rest is spent on. Knows nothing of tables.
"""

from collections.abc import Callable

import torch

from apt_model.models.wide_matmul import product_of
from benchmarks.rounds import Lap, interleaved
from benchmarks.sizes import Pair, Size, make_batch
from benchmarks.step.contenders import Contender
from benchmarks.step.floor import CHUNK, room

GROUPS = {  # of operations, by what their name holds
    "matrix products": ("::mm", "::addmm", "::bmm", "::matmul", "::linear", "::baddbmm"),
    "attention": ("scaled_dot_product",),
    "softmax": ("softmax",),
    "optimizer": ("_fused_adamw", "Optimizer"),
}


def bodies(contender: Contender, pair: Pair, size: Size) -> Callable[[], None]:
    """Both backbones forward, the student's backward from a gradient that is given, and the optimizer."""
    ids, _ = make_batch(size)
    head = pair.student.lm_head.weight
    gradient = torch.full_like(head, 1e-6)

    def turn() -> None:
        with contender.products(pair):
            with torch.no_grad():
                pair.teacher.model(ids)
            hidden = pair.student.model(ids).last_hidden_state
            hidden.backward(hidden.detach())
        head.grad = gradient
        pair.optimizer.step()
        pair.optimizer.zero_grad()

    return turn


def products(contender: Contender, pair: Pair, size: Size) -> Callable[[], None]:
    """The four products of both heads: logits of either, gradients of the student's hidden states and weight."""
    student, teacher = pair.student.lm_head.weight.detach(), pair.teacher.lm_head.weight
    count = size.rows * (size.length - 1)
    hidden = student.new_ones(count, student.shape[1])
    spoken = teacher.new_ones(count, teacher.shape[1])
    logits, told = room(CHUNK, student).fill_(1e-3), room(CHUNK, teacher)
    grad_hidden, grad_weight = torch.empty_like(hidden), torch.empty_like(student)

    def turn() -> None:
        with contender.products(pair):
            for start in range(0, count, CHUNK):
                chunk = hidden[start : start + CHUNK]
                here = logits[: len(chunk)]
                with product_of(chunk, student):
                    torch.mm(spoken[start : start + CHUNK], teacher.t(), out=told[: len(chunk)])
                    torch.mm(chunk, student.t(), out=here)
                    torch.mm(here, student, out=grad_hidden[start : start + CHUNK])
                    torch.addmm(grad_weight, here.t(), chunk, beta=int(start > 0), out=grad_weight)

    return turn


def profiled(step: Callable[[], None]) -> dict[str, float]:
    """Share of a step's time that each group of operations takes, 0..1, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    shares = dict.fromkeys([*GROUPS, "the rest"], 0.0)
    for event in profiler.key_averages():
        named = (group for group, names in GROUPS.items() if any(name in event.key for name in names))
        shares[next(named, "the rest")] += event.self_cpu_time_total
    total = sum(shares.values())
    return {group: spent / total for group, spent in shares.items()}


def breakdown(
    step: Callable[[], None], contender: Contender, pair: Pair, size: Size, rounds: int
) -> dict[str, list[Lap]]:
    """Interleaved laps of the contender's step and of both replicas, with products computed as the contender does."""
    replicas = {"bodies and optimizer": bodies, "the heads' products": products}
    turns = {"step": step, **{name: replica(contender, pair, size) for name, replica in replicas.items()}}
    for turn in turns.values():
        turn()
    return interleaved(turns, rounds)
