"""What a card says of its tokens, from what was read of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from apt_model.distill.continuations import Continued
from apt_model.distill.losses.readout import CardRow, RowReadout
from apt_model.distill.reporter import Decoder, Reporter
from apt_model.events.cards import Observation
from apt_model.events.sinks import Audience, Guard
from tests.data.test_token_text import byte_level


def told(readout: RowReadout, tokenizer: Any, listener: Any, **more: Any) -> Observation:
    report = Reporter(Audience([listener]), tokenizer=tokenizer, device=torch.device("cpu"), speaks=True)
    report.observe(readout, batch=0, epoch=1, loss=1.0, **more)
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


def test_ids_that_are_no_token_are_left_out(tokenizer: Any) -> None:
    decode = Decoder(tokenizer, Guard())
    good = tokenizer("人工")["input_ids"]
    assert decode([-100, *good, 10**6, tokenizer.eos_token_id]) == "人工"
    assert decode([]) == ""


@pytest.mark.parametrize("blank", ["", " ", " \n\t", "\u200b\u200d\ufeff", "\u3000 ", "��"])
def test_a_blank_text_is_empty(blank: str) -> None:
    class Says:
        def decode(self, ids: Any, **_: Any) -> str:
            return blank

    assert Decoder(Says(), Guard())([5]) == ""


def test_no_text_and_no_token_of_a_card_shows_a_piece_of_a_character(listener: Any) -> None:
    made = byte_level()
    pieces = [made.convert_tokens_to_ids(letter) for letter in "½łAä½B"]  # of 你 and of another, around A and B
    ids = [*pieces, pieces[3]]
    size = len(ids)
    card = CardRow(
        row=0,
        positions=torch.arange(size),
        given_ids=[pieces[0]],
        input_ids=[pieces[0], *ids],
        fed_ids=ids,
        original_ids=ids,
        left=size,
    )
    top = [[(token, 0.5)] for token in ids]
    said = told(
        replace(
            readout([0.5] * size),
            card=card,
            teacher_ids=ids,
            student_ids=ids[2:3] * size,
            teacher_top=top,
            student_top=top,
            student_entropy=[0.5] * size,
            kl_nats=[0.0] * size,
        ),
        made,
        listener,
    )
    assert (said.teacher_text, said.original, said.given, said.input_text) == ("A▯B", "A▯B", "", "A▯B")
    assert said.detail is not None
    assert "".join(said.detail.teacher) == "A▯B"
    assert [names[0][0] for names in said.detail.teacher_top] == ["⟨BD⟩", "⟨A0⟩", "A", "⟨E4⟩", "⟨BD⟩", "B", "⟨E4⟩"]
    assert said.token_ids is None


def test_a_continued_card_has_its_own_texts_and_echo_and_the_tokens_numbers(listener: Any, tokenizer: Any) -> None:
    continued = Continued([4, 5], [6, 6, 6], [4])
    said = told(readout([0.25, 0.5]), tokenizer, listener, continued=continued)
    assert (said.card_text, said.teacher_text, said.student_text, said.original) == ("continued", "ab", "ccc", "a")
    assert said.echo == pytest.approx(2 / 3)
    assert said.detail is not None
    assert (said.detail.teacher, said.detail.student) == (("a", ""), ("b", "c"))
    assert (said.tokens, said.normalised_kl) == (2, 0.5)
