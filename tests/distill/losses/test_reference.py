"""The loss against the same formula written out in float64."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from apt_model.config.sections import LossKind
from apt_model.distill.losses.divergences import KINDS
from apt_model.distill.losses.reference import FORMULAS, distillation_sums, token_divergence, token_kl
from tests.distill.losses.test_fused import divergence_written_out


def kl_written_out(teacher: list[float], student: list[float], temperature: float) -> float:
    """Σ p (log p − log q) in Python floats, for one position."""

    def log_softmax(logits: list[float]) -> list[float]:
        top = max(x / temperature for x in logits)
        total = math.log(math.fsum(math.exp(x / temperature - top) for x in logits)) + top
        return [x / temperature - total for x in logits]

    p, q = log_softmax(teacher), log_softmax(student)
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def sums_written_out(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KD and CE, position by position, in float64, with autograd for the gradient."""
    kd = ce = torch.zeros((), dtype=torch.float64)
    for b in range(labels.shape[0]):
        for position in range(labels.shape[1] - 1):
            target = int(labels[b, position + 1])
            if target == -100:
                continue
            p = torch.softmax(teacher[b, position] / temperature, dim=0)
            q = torch.softmax(student[b, position] / temperature, dim=0)
            kd = kd + temperature**2 * (p * (p.log() - q.log())).sum()
            ce = ce - torch.softmax(student[b, position], dim=0)[target].log()
    return kd, ce


def example(mask: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    student, teacher = (3 * torch.randn(3, 7, 50, generator=generator) for _ in range(2))
    labels = torch.randint(50, (3, 7), generator=generator)
    if mask == "padded":
        labels[0, 4:] = labels[1, 2:] = -100
    elif mask == "prompt":
        labels[:, :3] = -100
    elif mask == "one row":
        labels[1:] = -100
    return student, teacher, labels


def test_token_kl_equals_the_sum_written_out() -> None:
    student, teacher, _ = example("full")
    for temperature in (1.0, 4.0):
        ours = token_kl(student, teacher, temperature=temperature)
        pairs = zip(teacher.flatten(0, 1).tolist(), student.flatten(0, 1).tolist(), strict=True)
        expected = torch.tensor([kl_written_out(t, s, temperature) for t, s in pairs], dtype=torch.float64)
        torch.testing.assert_close(ours.double().flatten(), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("mask", ["full", "padded", "prompt", "one row"])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_value_and_gradient_equal_float64_to_a_millionth(mask: str, temperature: float) -> None:
    student, teacher, labels = example(mask)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    kd, ce = distillation_sums(ours, teacher, labels, temperature=temperature)
    kd64, ce64 = sums_written_out(exact, teacher.double(), labels, temperature)
    assert abs(kd.item() - kd64.item()) <= 1e-6 * abs(kd64.item())
    assert abs(ce.item() - ce64.item()) <= 1e-6 * abs(ce64.item())
    (0.7 * kd + 0.3 * ce).backward()
    (0.7 * kd64 + 0.3 * ce64).backward()
    assert ours.grad is not None
    assert exact.grad is not None
    error = (ours.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error <= 1e-6


def test_a_student_equal_to_its_teacher_scores_zero_and_has_no_gradient() -> None:
    logits, _, labels = example("padded")
    student = logits.clone().requires_grad_()
    kd, _ = distillation_sums(student, logits, labels, temperature=4.0)
    kd.backward()
    assert kd.item() == 0.0
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


def test_no_valid_label_gives_zero_not_nan() -> None:
    student, teacher, labels = example("full")
    kd, ce = distillation_sums(student.requires_grad_(), teacher, torch.full_like(labels, -100), temperature=4.0)
    (kd + ce).backward()
    assert (kd.item(), ce.item()) == (0.0, 0.0)
    assert student.grad is not None
    assert student.grad.abs().sum() == 0


def test_t_squared_keeps_the_gradient_of_the_same_size_and_temperature_changes_it() -> None:
    """For large T the gradient of T²·KL tends to (z_s − z_t) / V, centred (Hinton et al. 2015, eq. 4)."""
    generator = torch.Generator().manual_seed(6)
    student, teacher = (torch.randn(1, 2, 10, generator=generator) for _ in range(2))
    labels = torch.tensor([[0, 3]])
    gradients = {}
    for temperature in (1.0, 4.0, 200.0):
        leaf = student.clone().requires_grad_()
        kd, _ = distillation_sums(leaf, teacher, labels, temperature=temperature)
        kd.backward()
        assert leaf.grad is not None
        gradients[temperature] = leaf.grad[0, 0]
    difference = student[0, 0] - teacher[0, 0]
    limit = (difference - difference.mean()) / 10
    torch.testing.assert_close(gradients[200.0], limit, rtol=0.02, atol=1e-3)
    assert (gradients[1.0] - gradients[4.0]).abs().max() > 1e-2


def test_what_the_teacher_rules_out_counts_nothing() -> None:
    student, teacher, labels = example("padded")
    wide = torch.cat([teacher, torch.full((3, 7, 2), -torch.inf)], dim=-1)
    wider = torch.cat([student, torch.full((3, 7, 2), -torch.inf)], dim=-1).requires_grad_()
    kd, ce = distillation_sums(wider, wide, labels, temperature=2.0)
    plain_kd, plain_ce = distillation_sums(student, teacher, labels, temperature=2.0)
    assert (kd.item(), ce.item()) == pytest.approx((plain_kd.item(), plain_ce.item()), rel=1e-6)
    (kd + ce).backward()
    assert wider.grad is not None
    assert torch.isfinite(wider.grad).all()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_what_stands_where_nothing_is_to_be_learned_cannot_spoil_the_loss(broken: float) -> None:
    student, teacher, labels = example("padded")
    expected = distillation_sums(student, teacher, labels, temperature=2.0)
    ignored = torch.cat([labels[:, 1:] == -100, torch.ones(3, 1, dtype=torch.bool)], dim=1)
    assert ignored.any()
    student[ignored] = teacher[ignored] = broken
    sums = distillation_sums(student.requires_grad_(), teacher, labels, temperature=2.0)
    torch.testing.assert_close(sums, expected)
    sum(sums).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_the_gradient_never_reaches_the_teacher() -> None:
    student, teacher, labels = example("full")
    teacher.requires_grad_()
    kd, ce = distillation_sums(student.requires_grad_(), teacher, labels, temperature=2.0)
    (kd + ce).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(
    ("kind", "mixture"),
    [
        ("forward_kl", None),
        ("reverse_kl", None),
        ("jsd", 0.0),
        ("jsd", 0.5),
        ("jsd", 0.9),
        ("jsd", 1.0),
        ("skew_kl", None),
        ("skew_kl", 0.0),
        ("skew_reverse_kl", 0.3),
        ("skew_reverse_kl", 0.0),
    ],
)
def test_each_kind_of_loss_equals_its_formula_in_float64(kind: Any, mixture: float | None, temperature: float) -> None:
    student, teacher, _ = example("full")
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    found = token_divergence(ours, teacher, temperature=temperature, kind=kind, mixture=mixture)
    p, q = ((x / temperature).softmax(-1) for x in (teacher.double(), exact))
    default = {"skew_kl": 0.1}.get(kind)
    expected = divergence_written_out(kind, default if mixture is None else mixture, p, q)
    assert ((found.double() - expected).abs() <= 1e-5 * expected).all()
    found.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None
    assert exact.grad is not None
    assert (ours.grad.double() - exact.grad).norm() <= 1e-5 * exact.grad.norm()


def test_every_kind_has_its_formula_and_its_fused_form() -> None:
    assert set(FORMULAS) == set(KINDS) == set(get_args(LossKind))


@pytest.mark.parametrize("kind", ["reverse_kl", "jsd", "skew_kl", "skew_reverse_kl"])
def test_columns_that_both_rule_out_count_nothing_in_any_kind(kind: Any) -> None:
    student, teacher, _ = example("full")
    plain = token_divergence(student, teacher, temperature=2.0, kind=kind)
    wide = [torch.cat([x, torch.full((3, 7, 2), -torch.inf)], dim=-1) for x in (student, teacher)]
    wider = wide[0].requires_grad_()
    found = token_divergence(wider, wide[1], temperature=2.0, kind=kind)
    torch.testing.assert_close(found, plain)
    found.sum().backward()
    assert wider.grad is not None
    assert torch.isfinite(wider.grad).all()
