"""What a card says the student can still gain, against the same written out in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from apt_model.config.sections import MIXTURES, LossKind
from apt_model.data.batch import Batch, to_batch
from apt_model.distill.losses.fused import WrittenLogits, fused_distillation
from apt_model.distill.losses.logit_blocks import TensorSignal, TopRows, TopSignal
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import CardRow, choose_row, readout_of
from apt_model.distill.losses.teacher_logits import DenseLogits
from apt_model.distill.losses.topk_logits import SparseLogits

V, LENGTH, K = 70, 9, 6
KINDS: list[LossKind] = ["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl"]
WEIGHTS = [(0.7, 0.3), (1.0, 0.0), (0.0, 1.0)]


@pytest.fixture
def example() -> tuple[Batch, CardRow, Tensor, Tensor]:
    """A batch, its card, and both models' logits."""
    batch = to_batch(torch.randint(V, (2, LENGTH)))
    card = choose_row(batch, turn=1, given_tokens=3)
    assert card is not None
    return batch, card, 2 * torch.randn(2, LENGTH, V), 3 * torch.randn(2, LENGTH, V)


def kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def divergence(kind: LossKind, p: list[float], q: list[float]) -> float:
    """From each kind's paper, on plain numbers."""
    w = MIXTURES.get(kind, 0.0)

    def mix(weight: float) -> list[float]:
        return [weight * a + (1 - weight) * b for a, b in zip(p, q, strict=True)]

    return {
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "jsd": lambda: w * kl(p, mix(w)) + (1 - w) * kl(q, mix(w)),
        "skew_kl": lambda: kl(p, mix(w)),
        "skew_reverse_kl": lambda: kl(q, mix(1 - w)),
    }[kind]()


def softmax(logits: Tensor, temperature: float = 1.0) -> list[float]:
    shares: list[float] = torch.softmax(logits.double() / temperature, 0).tolist()
    return shares


def in_the_step(batch: Batch, card: CardRow, student: Tensor, signal: Any, objective: Objective) -> float:
    """The card's gain as the fused loss of a whole batch reads it."""
    positions = torch.cat([torch.arange(LENGTH - 1), LENGTH + torch.arange(LENGTH - 1)])
    labels = batch.labels.flatten()[positions + 1]
    shown = [card.row * (LENGTH - 1) + int(at) for at in card.positions]
    found = fused_distillation(
        WrittenLogits(logits=student.flatten(0, 1), positions=positions),
        signal(positions),
        labels,
        objective=objective,
        shown=shown,
    )
    assert found.shown is not None
    gain = readout_of(card, found.shown, found.pulls).gain
    assert gain is not None
    return gain


@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gain_is_the_loss_less_what_the_teacher_pays_itself(
    kind: LossKind, temperature: float, alpha: float, beta: float, example: Any
) -> None:
    batch, card, student, teacher = example
    exact = []
    for at in card.positions.tolist():
        own, theirs, label = student[card.row, at], teacher[card.row, at], int(batch.labels[card.row, at + 1])
        kd = temperature**2 * divergence(kind, softmax(theirs, temperature), softmax(own, temperature))
        gap = math.log(softmax(theirs)[label]) - math.log(softmax(own)[label])
        exact.append(alpha * kd + beta * gap)
    expected = pytest.approx(math.fsum(exact) / len(exact), rel=1e-4, abs=1e-5)
    objective = Objective(temperature=temperature, alpha=alpha, beta=beta, kind=kind)
    assert DenseLogits(teacher).gain(card, student, batch, objective) == expected

    def signal(positions: Tensor) -> TensorSignal:
        return TensorSignal(teacher.flatten(0, 1), temperature=temperature, width=V, positions=positions)

    assert in_the_step(batch, card, student, signal, objective) == expected


def test_a_copy_of_the_teacher_has_nothing_to_gain(example: Any) -> None:
    batch, card, _, teacher = example
    objective = Objective(temperature=4.0, alpha=0.7, beta=0.3)
    assert DenseLogits(teacher).gain(card, teacher, batch, objective) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_of_a_top_k_teacher_a_label_beyond_the_k_has_an_equal_share_of_the_tail(
    temperature: float, example: Any
) -> None:
    batch, card, student, teacher = example
    batch.labels[card.row, card.positions[0] + 1] = teacher[card.row, card.positions[0]].argmax()  # one that is known
    alpha, beta, exact, known = 0.7, 0.3, [], []
    for at in card.positions.tolist():
        own, theirs, label = student[card.row, at], teacher[card.row, at], int(batch.labels[card.row, at + 1])
        ids = theirs.topk(K).indices.tolist()
        p, q, p_one = softmax(theirs, temperature), softmax(own, temperature), softmax(theirs)
        tails = [1 - math.fsum(shares[one] for one in ids) for shares in (p, q, p_one)]
        kd = kl([*(p[one] for one in ids), tails[0]], [*(q[one] for one in ids), tails[1]])
        known.append(label in ids)
        teachers = p_one[label] if label in ids else tails[2] / (V - K)
        exact.append(alpha * temperature**2 * kd + beta * (math.log(teachers) - math.log(softmax(own)[label])))
    assert {True, False} == set(known)
    expected = pytest.approx(math.fsum(exact) / len(exact), rel=1e-4)

    def top_rows(logits: Tensor) -> TopRows:
        ids = logits.topk(K).indices
        tails = [
            (1 - (logits.double() / t).softmax(-1).gather(1, ids).sum(1)).log().float() for t in (temperature, 1.0)
        ]
        return TopRows(ids, (logits.double() / temperature).softmax(-1).gather(1, ids).log().float(), *tails)

    has_label = torch.ones(2, LENGTH, dtype=torch.bool)
    has_label[:, -1] = False
    objective = Objective(temperature=temperature, alpha=alpha, beta=beta)
    sparse = SparseLogits(rows=top_rows(teacher[has_label]), has_label=has_label, width=V, temperature=temperature)
    assert sparse.gain(card, student, batch, objective) == expected
    rows = top_rows(teacher[has_label])

    def signal(positions: Tensor) -> TopSignal:
        return TopSignal(lambda start, stop: rows.at(slice(start, stop)), width=V)

    assert in_the_step(batch, card, student, signal, objective) == expected
