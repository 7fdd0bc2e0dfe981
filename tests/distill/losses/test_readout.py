"""What a card reads out of the logits, against the same thing written out."""

import math
from typing import Any

import pytest
import torch

from apt_model.data.batch import to_batch
from apt_model.distill.losses.readout import FLOATS_AT_ONCE, MAX_CARD_TOKENS, choose_row, numbers
from apt_model.distill.losses.reference import token_kl
from apt_model.distill.losses.teacher_logits import DenseLogits


def test_the_row_is_read_at_its_valid_positions_only() -> None:
    batch = to_batch(
        {"input_ids": torch.tensor([[1, 5, 6, 7, 8, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0]])}
    )
    card = choose_row(batch, turn=0, given_tokens=2, bos=1)
    assert card is not None
    assert (card.positions.tolist(), card.given_ids, card.input_ids) == ([2, 3], [1, 5, 6], [1, 5, 6, 7, 8])
    assert (card.fed_ids, card.original_ids, card.left) == ([6, 7], [7, 8], 2)
    student, teacher = torch.randn(1, 6, 10), torch.randn(1, 6, 10)
    reading = DenseLogits(teacher).read(card, student, batch)
    kl = []
    for position in (2, 3):
        p, q = (torch.softmax(x[0, position].double(), 0).tolist() for x in (teacher, student))
        kl.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    assert reading.normalised_kl == pytest.approx(sum(1 - math.exp(-x) for x in kl) / 2, rel=1e-5)
    assert reading.teacher_ids == [int(teacher[0, position].argmax()) for position in (2, 3)]
    assert reading.kl_nats == pytest.approx(kl, rel=1e-5)
    for top, logits in ((reading.teacher_top, teacher), (reading.student_top, student)):
        for position, pairs in zip((2, 3), top, strict=True):
            best = torch.softmax(logits[0, position].double(), 0).sort(descending=True)
            assert [token for token, _ in pairs] == best.indices[:5].tolist()
            assert [share for _, share in pairs] == pytest.approx(best.values[:5].tolist(), rel=1e-5)
    for entropy, logits in ((reading.teacher_entropy, teacher), (reading.student_entropy, student)):
        shares = (torch.softmax(logits[0, position].double(), 0).tolist() for position in (2, 3))
        assert entropy == pytest.approx([-math.fsum(p * math.log(p) for p in row) for row in shares], rel=1e-5)
    assert reading.agreement == sum(a == b for a, b in zip(reading.teacher_ids, reading.student_ids, strict=True)) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_row_of_a_large_vocabulary_is_read_as_the_loss_would_read_it(dtype: torch.dtype) -> None:
    batch = to_batch(torch.randint(3_000, (2, 300)))
    card = choose_row(batch, turn=1, given_tokens=4)
    assert card is not None
    assert len(card.positions) == MAX_CARD_TOKENS > FLOATS_AT_ONCE // 3_000
    assert card.input_ids == batch.input_ids[1].tolist(), "the whole row, of which only a part is shown"
    student, teacher = (4 * torch.randn(2, 300, 3_000)).to(dtype), (4 * torch.randn(2, 300, 3_000)).to(dtype)
    teacher[:, :, :1_000] = -torch.inf
    student[:, :, :500] = -torch.inf
    student[:, ::2] = teacher[:, ::2]
    reading = DenseLogits(teacher).read(card, student, batch)
    rows = slice(3, 3 + MAX_CARD_TOKENS)
    kl = token_kl(student[1, rows], teacher[1, rows], temperature=1)
    assert reading.normalised_kl == pytest.approx(float((1 - torch.exp(-kl)).mean()), abs=1e-6)
    assert reading.teacher_ids == teacher[1, rows].argmax(-1).tolist()
    assert reading.student_ids == student[1, rows].argmax(-1).tolist()
    assert reading.agreement >= 0.5
    for entropy, logits in ((reading.teacher_entropy, teacher), (reading.student_entropy, student)):
        exact = torch.distributions.Categorical(probs=logits[1, rows].double().softmax(-1)).entropy()
        assert entropy == pytest.approx(exact.tolist(), rel=1e-5, abs=3e-5)


def test_the_best_tokens_are_found_wherever_they_are_and_of_equals_the_first() -> None:
    batch = to_batch(torch.randint(3_000, (1, 60)))
    card = choose_row(batch, turn=0, given_tokens=4)
    assert card is not None
    student, teacher = torch.randn(1, 60, 3_000), torch.randn(1, 60, 3_000)
    teacher[0, ::2, 640:645] += 20  # all in one place
    student[0, 9, [2_999, 70, 75, 1_000]] = 9.0
    reading = DenseLogits(teacher).read(card, student, batch)
    for logits, top in ((student, reading.student_top), (teacher, reading.teacher_top)):
        exact = logits[0, card.positions].double().softmax(-1).sort(descending=True)
        for ids, probs, pairs in zip(exact.indices.tolist(), exact.values.tolist(), top, strict=True):
            assert [share for _, share in pairs] == pytest.approx(probs[:5], rel=1e-5)
            if probs[0] > probs[1]:
                assert [token for token, _ in pairs] == ids[:5]
    assert reading.student_ids[card.positions.tolist().index(9)] == 70


def test_an_equal_student_reads_as_exactly_zero_and_one_without_overlap_as_one() -> None:
    batch = to_batch(torch.randint(40, (1, 9)))
    card = choose_row(batch, turn=0, given_tokens=1)
    assert card is not None
    logits = 10 * torch.randn(1, 9, 40)
    assert DenseLogits(logits).read(card, logits, batch).normalised_kl == 0
    left = logits.clone()
    left[..., :20] = -torch.inf
    right = logits.clone()
    right[..., 20:] = -torch.inf
    assert DenseLogits(right).read(card, left, batch).normalised_kl == 1


@pytest.mark.parametrize(
    ("mask", "labels", "given", "positions", "given_ids"),
    [
        ([1, 1, 1, 1, 1, 1], None, 4, [3, 4], [10, 11, 12, 13]),
        ([0, 0, 1, 1, 1, 1], None, 2, [1, 2], [12, 13]),  # padded on the left: moved to the right
        ([1, 1, 1, 1, 1, 1], [-100, -100, -100, -100, 14, 15], 2, [3, 4], [10, 11, 12, 13]),  # a prompt is masked
        ([1, 1, 1, 0, 0, 0], None, 4, [0, 1], [10]),  # too short to give anything away
        ([1, 1, 1, 1, 1, 1], None, 0, [0, 1, 2, 3, 4], [10]),  # nothing predicts the first token
    ],
)
def test_the_shown_part_begins_after_the_given_tokens(
    mask: list[int], labels: Any, given: int, positions: list[int], given_ids: list[int]
) -> None:
    raw = {"input_ids": torch.arange(10, 16)[None], "attention_mask": torch.tensor([mask])}
    card = choose_row(
        to_batch(raw | ({"labels": torch.tensor([labels])} if labels else {})), turn=0, given_tokens=given
    )
    assert card is not None
    assert (card.positions.tolist(), card.given_ids) == (positions, given_ids)


def test_rows_take_turns_and_those_without_labels_are_passed_over() -> None:
    labels = torch.tensor([[5, 6, 7], [-100] * 3, [5, 6, 7]])
    batch = to_batch({"input_ids": torch.tensor([[5, 6, 7]] * 3), "labels": labels})
    rows = [choose_row(batch, turn=turn, given_tokens=1) for turn in range(4)]
    assert [card.row for card in rows if card] == [0, 2, 0, 2]
    assert choose_row(to_batch({"input_ids": labels.abs(), "labels": labels * 0 - 100}), turn=0, given_tokens=1) is None


def test_numbers_come_in_one_reading() -> None:
    assert numbers([torch.tensor(1.5), torch.tensor(2, dtype=torch.int64)]) == [1.5, 2.0]
