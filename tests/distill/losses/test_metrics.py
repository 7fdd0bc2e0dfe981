"""The sums of a row against the same thing written out, position by position, in Python floats."""

import math

import pytest
import torch
from torch import Tensor

from apt_model.distill.losses import metrics
from apt_model.distill.losses.metrics import RowSums, row_sums


def log_softmax(logits: Tensor) -> list[float]:
    numbers = logits.double().tolist()
    top = max(numbers)
    total = top + math.log(math.fsum(math.exp(x - top) for x in numbers))
    return [x - total for x in numbers]


def written_out(student: Tensor, labels: Tensor, teacher: Tensor, row: int) -> dict[str, float]:
    sums = {"tokens": 0.0, "ce": 0.0, "correct": 0.0, "kl": 0.0, "agreed": 0.0}
    for position in range(labels.shape[1] - 1):
        target = int(labels[row, position + 1])
        if target == -100:
            continue
        q, p = log_softmax(student[row, position]), log_softmax(teacher[row, position])
        shared_q, shared_p = q, p
        if len(q) != len(p):
            size = min(len(q), len(p))
            shared_q, shared_p = (log_softmax(x[row, position, :size]) for x in (student, teacher))
        sums["tokens"] += 1
        sums["ce"] -= q[target]
        sums["correct"] += q.index(max(q)) == target
        sums["kl"] += math.fsum(math.exp(a) * (a - b) for a, b in zip(shared_p, shared_q, strict=True))
        sums["agreed"] += shared_q.index(max(shared_q)) == shared_p.index(max(shared_p))
    return sums


def example(teacher_size: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    student = 3 * torch.randn(4, 9, 30, generator=generator)
    noise = 3 * torch.randn(4, 9, teacher_size, generator=generator)
    teacher = noise.clone()
    teacher[..., :30] = 0.5 * noise[..., :30] + student[..., :teacher_size]
    labels = student.roll(1, dims=1).argmax(dim=-1)
    labels[:, ::3] = torch.randint(30, (4, 3), generator=generator)
    labels[0, :4] = labels[1, 5:] = labels[3] = -100
    return student, labels, teacher


def assert_equal_to_what_is_written_out(sums: RowSums, student: Tensor, labels: Tensor, teacher: Tensor) -> None:
    for row in range(len(labels)):
        expected = written_out(student, labels, teacher, row)
        for name, value in expected.items():
            assert float(getattr(sums, name)[row]) == pytest.approx(value, rel=2e-6, abs=1e-6), (name, row)


@pytest.mark.parametrize("teacher_size", [30, 33, 28])
def test_the_sums_equal_those_written_out(teacher_size: int) -> None:
    student, labels, teacher = example(teacher_size)
    sums = row_sums(student, labels, teacher)
    assert_equal_to_what_is_written_out(sums, student, labels, teacher)
    assert sums.agreed is not None
    assert 0 < float(sums.agreed.sum()) < float(sums.tokens.sum())
    assert 0 < float(sums.correct.sum()) < float(sums.tokens.sum())


@pytest.mark.parametrize("numbers", [1, 90, 10_000])
def test_the_size_of_the_chunks_changes_nothing(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student, labels, teacher = example()
    whole = row_sums(student, labels, teacher)
    monkeypatch.setattr(metrics, "CHUNK_NUMBERS", numbers)
    chunked = row_sums(student, labels, teacher)
    for name in ("tokens", "ce", "correct", "kl", "agreed"):
        assert torch.equal(getattr(whole, name), getattr(chunked, name))


def test_a_batch_without_a_label_sums_to_zero() -> None:
    student, labels, teacher = example()
    sums = row_sums(student, torch.full_like(labels, -100), teacher)
    for name in ("tokens", "ce", "correct", "kl", "agreed"):
        assert getattr(sums, name).tolist() == [0.0] * 4


def test_without_a_teacher_there_is_no_distance_and_the_rest_is_the_same() -> None:
    student, labels, teacher = example(33)
    alone, beside = row_sums(student, labels), row_sums(student, labels, teacher)
    assert (alone.kl, alone.agreed) == (None, None)
    assert torch.equal(alone.ce, beside.ce)
    assert torch.equal(alone.correct, beside.correct)


def test_a_student_equal_to_its_teacher_agrees_everywhere_and_has_no_distance() -> None:
    student, labels, _ = example()
    sums = row_sums(student, labels, student)
    assert sums.kl is not None
    assert sums.kl.tolist() == [0.0] * 4
    assert sums.agreed is not None
    assert torch.equal(sums.agreed, sums.tokens)


def test_a_student_that_differs_by_rounding_alone_is_never_closer_than_its_teacher() -> None:
    student, labels, _ = example()
    teacher = student + 1e-6 * torch.randn(student.shape, generator=torch.Generator().manual_seed(0))
    sums = row_sums(student, labels, teacher)
    assert sums.kl is not None
    assert (sums.kl >= 0).all()


def test_half_precision_is_summed_in_single_and_columns_ruled_out_count_nothing() -> None:
    student, labels, teacher = example()
    half = row_sums(student.bfloat16(), labels, teacher.bfloat16())
    assert_equal_to_what_is_written_out(half, student.bfloat16(), labels, teacher.bfloat16())
    ruled_out = torch.full((4, 9, 2), -torch.inf)
    wide = row_sums(torch.cat([student, ruled_out], -1), labels, torch.cat([teacher, ruled_out], -1))
    assert_equal_to_what_is_written_out(wide, student, labels, teacher)


def test_memory_beyond_the_logits_does_not_grow_with_the_batch() -> None:
    """The largest tensor made on the way is a chunk, not a copy of the logits."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            for made in result if isinstance(result, tuple | list) else [result]:
                if isinstance(made, Tensor) and not any(made is given for given in args):
                    fresh = made._base is None
                    self.numbers = max(self.numbers, made.numel() if fresh else 0)
            return result

    logits, labels = torch.randn(8, 65, 20_000), torch.randint(20_000, (8, 65))
    with Largest() as largest:
        row_sums(logits, labels, logits)
    assert 0 < largest.numbers <= metrics.CHUNK_NUMBERS < logits.numel()
