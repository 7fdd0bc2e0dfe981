"""A student against a teacher with another vocabulary: values and gradients against the sums written out."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.data.teachers_rows import TeachersRows
from apt_model.distill.losses.cross_vocabulary import Beginnings, CrossedLogits, outcome_kl, sorted_distance, span_side
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import choose_row
from apt_model.distill.losses.reference import token_kl

STUDENT, TEACHER = 7, 9
# four beginnings; the student's tokens 0 and 3 are longer ones of the first two, the teacher's 0, 2 and 7 likewise
OF_STUDENT = {1: 0, 2: 1, 4: 2, 6: 3, 0: 0, 3: 1}
OF_TEACHER = {1: 0, 5: 1, 3: 2, 8: 3, 0: 2, 2: 0, 7: 3}
SPANS = [[0, 1, 1, 1, 1], [0, 2, 2, 2, 1], [0, 4, 1, 4, 3], [1, 1, 2, 2, 2]]


def case(seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor, Batch]:
    """Logits of both and a batch of two rows whose tokens meet in SPANS: 1-1, 2-1, 1-3, 2-2."""
    torch.manual_seed(seed)
    ids, theirs = torch.randint(0, STUDENT, (2, 6)), torch.randint(0, TEACHER, (2, 8))
    ids[0, 1], theirs[0, 1] = 2, 5  # one token of the same text
    labels = ids.clone()
    labels[1, 3:] = IGNORED
    teachers = TeachersRows(input_ids=theirs, attention_mask=torch.ones_like(theirs), spans=torch.tensor(SPANS))
    batch = Batch(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, teachers=teachers)
    return torch.randn(2, 6, STUDENT) * scale, torch.randn(2, 8, TEACHER) * scale, batch


def beginnings() -> Beginnings:
    return Beginnings.of((4, OF_STUDENT, OF_TEACHER), student_width=STUDENT, teacher_width=TEACHER)


def of_one(count: int) -> Beginnings:
    """Of one vocabulary whose first tokens are their own beginnings."""
    own = {token: token for token in range(count)}
    return Beginnings.of((count, own, own), student_width=STUDENT, teacher_width=STUDENT)


def crossed(logits: Tensor) -> CrossedLogits:
    return CrossedLogits(logits=logits, beginnings=beginnings())


def by(kind: Literal["uld", "kl"], temperature: float = 1.0) -> Objective:
    return Objective(temperature=temperature, alpha=0.7, beta=0.3, cross_tokenizer=kind)


def probs(logits: Tensor, row: int, position: int, temperature: float) -> Tensor:
    """Float64, of what comes at a position."""
    return torch.softmax(logits[row, position - 1].double() / temperature, dim=0)


def chance_of_rest(logits: Tensor, ids: Tensor, row: int, first: int, count: int, temperature: float) -> Tensor:
    chance = torch.ones((), dtype=torch.float64)
    for at in range(first + 1, first + count):
        chance = chance * probs(logits, row, at, temperature)[ids[row, at]]
    return chance


def l1_of_sorted(one: list[Tensor], other: list[Tensor]) -> Tensor:
    width = max(len(one), len(other))
    zero = torch.zeros((), dtype=torch.float64)
    mine, theirs = (
        sorted(side + [zero] * (width - len(side)), key=lambda p: -float(p.detach())) for side in (one, other)
    )
    return sum((abs(a - b) for a, b in zip(mine, theirs, strict=True)), start=zero)


def written_out(own: Tensor, theirs: Tensor, batch: Batch, kind: str, temperature: float) -> Tensor:
    """The sum over spans in plain loops and float64."""
    assert batch.teachers is not None
    total = torch.zeros((), dtype=torch.float64)
    for row, first, count, t_first, t_count in SPANS:
        q, p = probs(own, row, first, temperature), probs(theirs, row, t_first, temperature)
        q_rest = chance_of_rest(own, batch.input_ids, row, first, count, temperature)
        p_rest = chance_of_rest(theirs, batch.teachers.input_ids, row, t_first, t_count, temperature)
        if kind == "uld":
            total = total + temperature * l1_of_sorted(list(q * q_rest), list(p * p_rest))
            continue
        begin, t_begin = int(batch.input_ids[row, first]), int(batch.teachers.input_ids[row, t_first])
        said, t_said = q[begin] * q_rest, p[t_begin] * p_rest
        outcomes = [(said, t_said)]
        for number in range(5):  # the last one: no beginning
            own_of = [q[i] for i in range(STUDENT) if OF_STUDENT.get(i, 4) == number]
            their_of = [p[i] for i in range(TEACHER) if OF_TEACHER.get(i, 4) == number]
            mine = sum(own_of, start=torch.zeros((), dtype=torch.float64))
            other = sum(their_of, start=torch.zeros((), dtype=torch.float64))
            mine = mine - said if OF_STUDENT.get(begin, 4) == number else mine
            other = other - t_said if OF_TEACHER.get(t_begin, 4) == number else other
            outcomes.append((mine, other))
        total = total + temperature**2 * sum(b * (b / a).log() for a, b in outcomes if b > 1e-12)
    return total


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["uld", "kl"])
def test_kd_and_its_gradient_are_the_sum_over_spans_written_out(kind: Literal["uld", "kl"], temperature: float) -> None:
    own, theirs, batch = case()
    expected_of = own.double().requires_grad_()
    expected = written_out(expected_of, theirs.double(), batch, kind, temperature)
    expected.backward()
    own.requires_grad_()
    kd, _ = crossed(theirs).sums(own, batch, by(kind, temperature))
    kd.backward()
    assert kd.item() == pytest.approx(expected.item(), rel=1e-5)
    assert own.grad is not None
    assert expected_of.grad is not None
    torch.testing.assert_close(own.grad.double(), expected_of.grad, rtol=1e-4, atol=1e-6)


def test_ce_is_over_all_of_the_students_own_labels() -> None:
    own, theirs, batch = case()
    _, ce = crossed(theirs).sums(own, batch, by("kl"))
    log_probs = own.double().log_softmax(dim=-1)
    expected = -sum(
        log_probs[row, at - 1, batch.labels[row, at]]
        for row in range(2)
        for at in range(1, 6)
        if batch.labels[row, at] != IGNORED
    )
    assert ce.item() == pytest.approx(float(expected), rel=1e-5)


def test_uld_is_what_trl_makes_of_the_same_spans() -> None:
    trainer = pytest.importorskip("trl.experimental.gold.gold_trainer")
    own, theirs, batch = case()
    assert batch.teachers is not None
    loss = trainer.ULDLoss.__new__(trainer.ULDLoss)
    loss.token_merge_strategy = "observed"
    expected = torch.zeros(())
    for row, first, count, t_first, t_count in SPANS:
        merged = [
            loss._merge_probabilities_with_alignment_groups(
                torch.softmax(logits[row, start - 1 : start + number - 1], dim=-1),
                [list(range(number))],
                ids[row, start : start + number].tolist(),
            )
            for logits, ids, start, number in (
                (own, batch.input_ids, first, count),
                (theirs, batch.teachers.input_ids, t_first, t_count),
            )
        ]
        one, other = (probs.sort(dim=-1, descending=True).values for probs in merged)
        expected += (torch.nn.functional.pad(one, (0, TEACHER - STUDENT)) - other).abs().sum()
    kd, _ = crossed(theirs).sums(own, batch, by("uld"))
    assert kd.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["uld", "kl"])
def test_an_equal_student_has_nothing_left_to_learn(kind: Literal["uld", "kl"]) -> None:
    own, _, batch = case()
    assert batch.teachers is not None
    spans = torch.tensor([[row, first, count, first, count] for row, first, count, _, _ in SPANS])
    same = TeachersRows(input_ids=batch.input_ids, attention_mask=batch.attention_mask, spans=spans)
    batch = Batch(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, teachers=same)
    own.requires_grad_()
    said = CrossedLogits(logits=own.detach(), beginnings=of_one(3))
    kd, _ = said.sums(own, batch, by(kind, 2.0))
    kd.backward()
    assert kd.item() == pytest.approx(0, abs=1e-5)
    assert own.grad is not None
    if kind == "kl":  # the slope of |x| at 0 is anything; that of a KL is 0
        assert own.grad.abs().max() < 1e-5
    assert said.agreed(own, batch) == spans[:, 2].sum()


def test_with_one_vocabulary_and_spans_of_one_token_the_outcomes_are_the_tokens() -> None:
    torch.manual_seed(1)
    own, theirs = torch.randn(1, 5, STUDENT) * 3, torch.randn(1, 5, STUDENT) * 3
    ids, spans = torch.randint(0, STUDENT, (1, 5)), torch.tensor([[0, at, 1] for at in range(1, 5)])
    sides = [span_side(logits, ids, spans, temperature=1.0) for logits in (own, theirs)]
    kl = outcome_kl(*sides, of_one(STUDENT))
    torch.testing.assert_close(kl, token_kl(own, theirs, temperature=1.0)[0, :4], rtol=1e-4, atol=1e-5)


def test_the_outcomes_never_say_more_than_the_tokens() -> None:
    for seed in range(20):
        own, theirs, batch = case(seed)
        assert batch.teachers is not None
        spans = batch.teachers.spans
        student = span_side(own, batch.input_ids, spans[:, :3], temperature=1.0)
        teacher = span_side(theirs, batch.teachers.input_ids, spans[:, [0, 3, 4]], temperature=1.0)
        assert (outcome_kl(student, teacher, beginnings()) > -1e-6).all()


def test_a_teacher_that_rules_tokens_out_gives_finite_numbers() -> None:
    own, theirs, batch = case()
    assert batch.teachers is not None
    theirs[..., 3] = -torch.inf
    batch.teachers.input_ids[0, 1] = 3  # even of a token that the text has
    own.requires_grad_()
    for kind in ("uld", "kl"):
        kd, _ = crossed(theirs).sums(own, batch, by(kind))  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(kd, own)
        assert math.isfinite(kd.item())
        assert gradient.isfinite().all()


def test_spans_in_several_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    own, theirs, batch = case()
    whole = [float(part) for part in crossed(theirs).sums(own, batch, by("kl"))]
    monkeypatch.setattr("apt_model.distill.losses.cross_vocabulary.FLOATS_AT_ONCE", 2 * TEACHER)
    assert [float(part) for part in crossed(theirs).sums(own, batch, by("kl"))] == pytest.approx(whole)


def test_a_batch_without_a_span_has_labels_alone() -> None:
    own, theirs, batch = case()
    assert batch.teachers is not None
    none = TeachersRows(
        input_ids=batch.teachers.input_ids,
        attention_mask=batch.teachers.attention_mask,
        spans=torch.empty(0, 5, dtype=torch.int64),
    )
    batch = Batch(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, teachers=none)
    kd, ce = crossed(theirs).sums(own, batch, by("kl"))
    assert kd == 0
    assert ce > 0
    assert choose_row(batch, turn=0, given_tokens=0) is None


def test_sets_of_different_size_are_filled_up_with_zeros() -> None:
    one, other = torch.tensor([[0.2, 0.7]]), torch.tensor([[0.1, 0.3, 0.5]])
    assert sorted_distance(one, other).item() == pytest.approx(0.2 + 0.1 + 0.1)


def test_a_card_reads_the_spans_that_it_shows() -> None:
    own, theirs, batch = case()
    card = choose_row(batch, turn=0, given_tokens=3)
    assert card is not None
    assert card.row == 0
    read = crossed(theirs).read(card, own, batch)
    assert read.student_ids == own[0, [3]].argmax(dim=-1).tolist()  # the span that begins at token 4
    assert read.teacher_ids == theirs[0, [3, 4, 5]].argmax(dim=-1).tolist()
    kl = written_out(own, theirs, batch, "kl", 1.0)
    assert 0 < read.kl_nats[0] < float(kl)
    assert read.normalised_kl == pytest.approx(1 - math.exp(-read.kl_nats[0]), rel=1e-5)
    assert read.agreement in (0.0, 1.0)


def test_a_token_that_two_vocabularies_cut_differently_begins_alike() -> None:
    """The teacher is sure of a long token, the student of the first of two short ones: nothing is left to learn."""
    own, theirs = torch.full((1, 2, 3), -30.0), torch.full((1, 2, 3), -30.0)
    own[0, 0, 0] = theirs[0, 0, 1] = 30.0  # "a" for the student, "ab" for the teacher
    batch_ids = torch.tensor([[2, 2]])  # and the text goes on otherwise
    sides = [span_side(logits, batch_ids, torch.tensor([[0, 1, 1]]), temperature=1.0) for logits in (own, theirs)]
    found = Beginnings.of((2, {0: 0, 2: 1}, {0: 0, 1: 0, 2: 1}), student_width=3, teacher_width=3)
    assert outcome_kl(*sides, found).item() == pytest.approx(0, abs=1e-5)
    apart = Beginnings.of((2, {0: 0, 2: 1}, {0: 0, 2: 1}), student_width=3, teacher_width=3)
    assert outcome_kl(*sides, apart).item() > 10


def test_tokens_beyond_a_head_are_left_out() -> None:
    found = Beginnings.of((2, {1: 0, 9: 1}, {1: 0, 2: 1}), student_width=3, teacher_width=4)
    assert found.student.tolist() == [2, 0, 2]
    assert found.teacher.tolist() == [2, 0, 1, 2]
