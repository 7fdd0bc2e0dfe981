"""What a card says of its tokens, from what was read of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from apt_model.distill.losses.readout import CardRow, RowReadout
from apt_model.distill.reporter import Reporter
from apt_model.events.cards import Observation
from apt_model.events.sinks import Audience


def told(readout: RowReadout, tokenizer: Any, listener: Any) -> Observation:
    report = Reporter(Audience([listener]), tokenizer=tokenizer, device=torch.device("cpu"), speaks=True)
    report.observe(readout, batch=0, epoch=1, loss=1.0)
    (said,) = listener.of(Observation)
    assert isinstance(said, Observation)
    return said


def readout(teacher_entropy: list[float]) -> RowReadout:
    return RowReadout(
        card=CardRow(
            row=0,
            positions=torch.arange(2),
            given_ids=[1],
            input_ids=[1, 4, 5],
            fed_ids=[1, 4],
            original_ids=[4, 5],
            left=2,
        ),
        teacher_ids=[4, 2],
        student_ids=[5, 6],
        normalised_kl=0.5,
        agreement=0.0,
        kl_nats=[0.000123456, 12345.678],
        teacher_top=[[(4, 0.6666666), (2, 1e-30)], [(2, 1.0)]],
        student_top=[[(5, 0.99995)], [(6, 0.12344), (99, 0.0)]],
        teacher_entropy=teacher_entropy,
        student_entropy=[1.5, float("inf")],
    )


def test_a_card_says_each_token_its_candidates_and_four_digits_of_every_number(listener: Any, tokenizer: Any) -> None:
    detail = told(readout([0.25, 0.5]), tokenizer, listener).detail
    assert detail is not None
    assert (detail.teacher, detail.student) == (("a", ""), ("b", "c"))
    assert detail.kl_nats == (0.0001235, 12345.678)
    assert detail.teacher_top == ((("a", 0.6667), ("</s>", 1e-30)), (("</s>", 1.0),))
    assert detail.student_top == ((("b", 1.0),), (("c", 0.1234), ("⟨#99⟩", 0.0)))
    assert (detail.teacher_entropy, detail.student_entropy) == ((0.25, 0.5), (1.5, float("inf")))


@pytest.mark.parametrize(("teachers", "gap"), [([0.25, 0.5], 1.0), ([], None)])
def test_the_entropy_gap_is_the_students_mean_less_the_teachers(
    teachers: list[float], gap: float | None, listener: Any, tokenizer: Any
) -> None:
    seen = replace(readout(teachers), student_entropy=[1.25, 1.5])
    assert told(seen, tokenizer, listener).entropy_gap == gap


def test_without_a_tokenizer_that_knows_single_tokens_there_is_no_detail(listener: Any) -> None:
    assert told(readout([]), None, listener).detail is None
