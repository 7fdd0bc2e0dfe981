"""The yardstick is a true cross-entropy, a contender that computes another thing is caught, tables tell the figures."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import chain, repeat

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks import rounds
from benchmarks.rounds import Lap, interleaved, spread
from benchmarks.sizes import Pair, Size
from benchmarks.step import tables, worker
from benchmarks.step.contenders import OURS, Contender
from benchmarks.step.floor import CHUNK, LINE, ChunkedCrossEntropy
from benchmarks.step.objective import TASK, TOLERANCE, LossFunction, StepObjective, disagreement
from benchmarks.step.worker import Job, Result, check, time_steps

TINY = Size(vocabulary=50, teacher=(32, 1), student=(32, 1), rows=2, length=6)
BY_NAME = {contender.name: contender for contender in OURS}


@pytest.mark.parametrize("line", [LINE, 1])
def test_the_floors_loss_and_gradients_are_those_of_a_cross_entropy_in_float64_over_several_chunks(line: int) -> None:
    hidden = torch.randn(2 * CHUNK + 5, 16, requires_grad=True)
    weight = torch.randn(131, 16, requires_grad=True)
    labels = torch.randint(131, (len(hidden),))
    exact_hidden, exact_weight = (part.detach().double().requires_grad_() for part in (hidden, weight))
    expected = F.cross_entropy(exact_hidden @ exact_weight.t(), labels)
    expected.backward()
    found = ChunkedCrossEntropy.apply(hidden, weight, labels, line)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(hidden.grad.double(), exact_hidden.grad, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(weight.grad.double(), exact_weight.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_contender_computes_what_it_says(name: str) -> None:
    contender = BY_NAME[name]
    found = disagreement(contender.build, contender.objective, contender.products)
    assert max(found) <= contender.objective.tolerance
    assert (max(found) > TOLERANCE) == (name in {"ours-cached", "ours-fused-bf16-head"})


@pytest.mark.parametrize(
    "claim",
    [
        replace(TASK, temperature=1.0),
        replace(TASK, kd_weight=1.0),
        replace(TASK, ce_weight=0.0),
        replace(TASK, masks=False),
        replace(TASK, kd="soft CE"),
        replace(TASK, kd="JSD"),
    ],
)
def test_a_contender_that_says_another_thing_than_it_computes_is_caught(claim: StepObjective) -> None:
    assert max(disagreement(BY_NAME["plain"].build, claim)) > 100 * TOLERANCE


def test_a_loss_of_the_right_value_that_leaves_a_part_of_the_student_without_gradient_is_caught() -> None:
    def build(pair: Pair) -> LossFunction:
        honest = BY_NAME["plain"].build(pair)
        pair.student.lm_head.requires_grad_(False)
        return honest

    loss, gradient = disagreement(build, TASK)
    assert loss <= TOLERANCE < gradient


def test_a_contender_that_fails_is_listed_with_its_first_line_and_the_others_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(pair: Pair) -> LossFunction:
        raise ModuleNotFoundError("No module named 'peer'\nand more")

    broken = Contender(name="broken", build=build)
    monkeypatch.setattr(worker, "CONTENDERS", {**BY_NAME, "broken": broken})
    names = ["floor", "broken", "plain"]
    reason = "ModuleNotFoundError: No module named 'peer'"
    assert check(Job(kind="check", contenders=["broken"])).failed == {"broken": reason}
    timed = time_steps(Job(kind="time", contenders=names, size=TINY, rounds=2))
    assert timed.failed == {"broken fp32": reason}
    assert {key: len(laps) for key, laps in timed.laps.items()} == {"floor fp32": 2, "plain fp32": 2, "floor again": 2}
    assert all(lap.cpu > 0 for laps in timed.laps.values() for lap in laps)


def test_every_round_has_one_turn_of_each_and_begins_with_another() -> None:
    order: list[str] = []
    turns: dict[str, Callable[[], None]] = {name: lambda name=name: order.append(name) for name in "abc"}
    interleaved(turns, 4)
    assert "".join(order) == "abcbcacababc"


def test_no_round_begins_after_the_time_is_up_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = chain([0.0], repeat(10.0))
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: next(clock))
    assert len(interleaved({"a": lambda: None}, 5, seconds=1)["a"]) == 1


def test_a_job_and_a_result_come_back_from_json_as_they_were() -> None:
    job = Job(kind="time", contenders=["floor"], size=TINY, dtypes=["bf16"], rounds=3, seconds=9.0)
    assert Job.parse(json.dumps(asdict(job))) == job
    result = Result(laps={"floor fp32": [Lap(cpu=1.0, kernel=0.5, wall=2.0)]}, failed={"x": "y"})
    assert Result.parse(json.dumps(asdict(result))) == result


def test_the_table_has_the_median_of_the_ratios_of_each_round_and_the_memory_above_the_floor() -> None:
    def laps(*seconds: float) -> list[dict[str, float]]:
        return [{"cpu": one, "kernel": one / 4, "wall": 3 * one} for one in seconds]

    time = {"floor fp32": laps(1, 2, 4), "plain fp32": laps(2, 5, 8), "floor again": laps(1, 2, 4)}
    cells = [
        {"kind": "time", "size": "S", "allocator": "glibc", "laps": time, "failed": {"modelopt fp32": "no such thing"}},
        {"kind": "memory", "size": "S", "peak": {"floor fp32": 100.0}, "failed": {}},
        {"kind": "memory", "size": "S", "peak": {"plain fp32": 1350.0}, "failed": {}},
        {"kind": "check", "errors": {"plain": [1e-8, 2e-3]}, "failed": {}},
    ]
    machine = {"device": "a CPU", "threads": 1, "load": 0.5, "versions": {"torch": "9.9"}}
    text = tables.step({"machine": machine, "cells": cells})
    assert "| plain | 2.00 (2.00 to 2.25) | 2.00 | 25% |" in text
    assert "| plain | 1,250 |" in text
    assert "| **no** (1e-08, 2e-03) |" in text
    assert "- modelopt (time S): no such thing" in text
    assert "a CPU; 1 thread(s)" in text


def test_a_spread_is_median_and_quartiles_written_out() -> None:
    assert spread([1, 2, 3, 4, 5]) == "3.00 (2.00 to 4.00)"
    assert spread([7], digits=1) == "7.0 (7.0 to 7.0)"


def test_the_written_out_divergences_of_a_known_pair() -> None:
    student, teacher = (torch.tensor([[[a, b], [0.0, 0.0]]]).double().log() for a, b in ((0.5, 0.5), (0.25, 0.75)))
    labels = torch.tensor([[0, 1]])

    def value(objective: StepObjective) -> Tensor:
        return objective.written_out(student, teacher, labels)

    only = {"temperature": 1.0, "kd_weight": 1.0, "ce_weight": 0.0}
    kl = 0.25 * torch.log(torch.tensor(0.5)) + 0.75 * torch.log(torch.tensor(1.5))
    torch.testing.assert_close(value(StepObjective(kd="KL", **only)).float(), kl)
    torch.testing.assert_close(value(StepObjective(kd="soft CE", **only)).float(), torch.tensor(2.0).log())
    torch.testing.assert_close(value(StepObjective(kd=None, ce_weight=3.0)).float(), 3 * torch.tensor(2.0).log())
    middle = torch.tensor([0.375, 0.625])
    p, q = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
    jsd = 0.5 * (p * (p / middle).log()).sum() + 0.5 * (q * (q / middle).log()).sum()
    torch.testing.assert_close(value(StepObjective(kd="JSD", **only)).float(), jsd)
