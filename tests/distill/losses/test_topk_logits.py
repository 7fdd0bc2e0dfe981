"""KL over the likeliest tokens and the tail as one, against the same written out in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apt_model.distill.losses.logit_blocks import TopRows
from apt_model.distill.losses.reference import token_kl
from apt_model.distill.losses.topk_logits import sparse_token_kl


def top_rows(logits: Tensor, k: int, temperature: float) -> TopRows:
    """The top k of logits (R, V) by sorting and summing in float64."""
    probs = (logits.double() / temperature).softmax(-1)
    at_one = logits.double().softmax(-1)
    ids = probs.argsort(-1, descending=True)[:, :k]
    rest = torch.ones_like(probs, dtype=torch.bool).scatter(-1, ids, False)
    tails = ((some * rest).sum(-1).log().float() for some in (probs, at_one))
    return TopRows(ids, probs.gather(-1, ids).log().float(), *tails)


def written_out(student: Tensor, teacher: TopRows, temperature: float) -> Tensor:
    """One position, one token at a time."""
    result = []
    for row in range(len(student)):
        q = (student[row].double() / temperature).softmax(-1)
        known = teacher.ids[row].tolist()
        kl = torch.zeros((), dtype=torch.float64)
        for token, log_p in zip(known, teacher.log_probs[row].double(), strict=True):
            kl = kl + log_p.exp() * (log_p - q[token].log())
        others = [q[token] for token in range(len(q)) if token not in known]
        if others:
            log_tail = teacher.log_tail[row].double()
            kl = kl + log_tail.exp() * (log_tail - torch.stack(others).sum().log())
        result.append(kl)
    return torch.stack(result)


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_values_and_gradients_equal_the_sum_written_out(k: int, temperature: float) -> None:
    teacher, student = 3 * torch.randn(5, 12), (3 * torch.randn(5, 12)).requires_grad_()
    rows = top_rows(teacher, k, temperature)
    value = sparse_token_kl(student, rows, temperature=temperature)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    expected = written_out(student, rows, temperature)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), student)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


def test_with_the_whole_vocabulary_it_is_the_full_kl() -> None:
    teacher, student = torch.randn(4, 9), torch.randn(4, 9).requires_grad_()
    sparse = sparse_token_kl(student, top_rows(teacher, 9, 2.0), temperature=2.0)
    full = token_kl(student, teacher, temperature=2.0)
    torch.testing.assert_close(sparse, full, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(kl.sum(), student)[0] for kl in (sparse, full)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    temperature=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    scale=st.sampled_from([0.1, 1.0, 5.0, 20.0]),
)
def test_it_is_never_more_than_the_full_kl_and_grows_with_k(
    seed: int, k: int, temperature: float, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = (scale * torch.randn(3, 13, generator=generator) for _ in range(2))
    full = token_kl(student.double(), teacher.double(), temperature=temperature)
    less, more = (
        sparse_token_kl(student, top_rows(teacher, size, temperature), temperature=temperature) for size in (k, k + 1)
    )
    slack = 1e-5 * (1 + full)
    assert (less <= full + slack).all()
    assert (less <= more + slack).all()
    assert (less >= -slack).all()


def test_what_the_bucket_hides_is_the_tails_mass_times_the_kl_within_it() -> None:
    teacher, student = torch.randn(1, 10), torch.randn(1, 10)
    rows = top_rows(teacher, 4, 1.0)
    tail = [token for token in range(10) if token not in rows.ids[0].tolist()]
    p, q = teacher[0].double().softmax(-1)[tail], student[0].double().softmax(-1)[tail]
    hidden = sum(a * math.log((a / p.sum()) / (b / q.sum())) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    full = token_kl(student, teacher, temperature=1.0)
    assert (full - sparse_token_kl(student, rows, temperature=1.0)).item() == pytest.approx(float(hidden), abs=1e-5)


def test_a_student_that_is_sure_of_itself_gets_an_exact_tail() -> None:
    """1 - Σ of its top probabilities is 0 in float32; the tail is e^-40."""
    student = torch.tensor([[40.0, 0.0, 0.0, 0.0]], requires_grad=True)
    rows = TopRows(torch.tensor([[0]]), torch.tensor([[0.5]]).log(), torch.tensor([0.5]).log(), torch.tensor([0.0]))
    value = sparse_token_kl(student, rows, temperature=1.0)
    assert value.item() == pytest.approx(math.log(0.5) - 0.5 * (math.log(3) - 40), rel=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, -1 / 6, -1 / 6, -1 / 6]]))


def test_what_the_teacher_rules_out_counts_nothing() -> None:
    rows = TopRows(
        torch.tensor([[2, 0]]), torch.tensor([[0.0, -1e30]]), torch.tensor([-torch.inf]), torch.tensor([-torch.inf])
    )
    student = torch.tensor([[1.0, -torch.inf, 2.0]], requires_grad=True)
    value = sparse_token_kl(student, rows, temperature=1.0)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert torch.isfinite(gradient).all()
