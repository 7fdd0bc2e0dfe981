"""How both models go on by themselves: greedily, without a trace; and what counts as an echo."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from apt_model.distill.continuations import Continuations, echo
from apt_model.distill.losses.readout import CardRow


@pytest.fixture
def continuations(teacher: Any, tokenizer: Any) -> Continuations:
    return Continuations(teacher=teacher, tokenizer=tokenizer, accelerator=Accelerator(cpu=True))


def textbook(model: Any, ids: list[int], tokens: int) -> list[int]:
    """Token by token over the whole text."""
    said: list[int] = []
    while len(said) < tokens:
        with torch.no_grad():
            said.append(int(model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == 2:
            return said[:-1]
    return said


def row(given: list[int], left: int, **more: Any) -> CardRow:
    ids = list(range(4, 4 + left))
    return CardRow(
        row=0,
        positions=torch.arange(len(given) - 1, len(given) - 1 + left),
        given_ids=given,
        input_ids=[*given, *ids],
        fed_ids=[given[-1], *ids[:-1]],
        original_ids=ids,
        left=left,
        **more,
    )


def test_cards_of_one_step_are_continued_in_one_batch_each_no_longer_than_its_row(
    continuations: Continuations, teacher: Any, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [row([1, 20, 21, 22], 3), row([1, 30], 40), row([1, 40, 41], 9)]
    asked = []
    for model in (teacher, student):
        own = model.generate
        monkeypatch.setattr(model, "generate", lambda ids, _g=own, **k: (asked.append(len(ids)), _g(ids, **k))[1])
    said = continuations.of_cards(student, cards, most=8)
    assert asked == [3, 3]
    for card, one, tokens in zip(cards, said, (3, 8, 8), strict=True):
        assert one.teacher == textbook(teacher, card.given_ids, tokens)
        assert one.student == textbook(student, card.given_ids, tokens)
        assert one.original == card.original_ids[:tokens]


def test_a_teacher_with_another_tokenizer_goes_on_from_its_own_tokens(
    continuations: Continuations, teacher: Any, student: Any
) -> None:
    (said,) = continuations.of_cards(student, [row([1, 20], 5, teachers=([1, 7, 8], 2))], most=8)
    assert said.teacher == textbook(teacher, [1, 7, 8], 2)
    assert said.student == textbook(student, [1, 20], 5)


def test_models_modes_and_generators_are_as_they_were(
    continuations: Continuations, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student.train()
    student.model.layers[0].eval()
    modes = [module.training for module in student.modules()]
    settings, weights = student.generation_config, [one.clone() for one in student.parameters()]
    own, seen = student.generate, []

    def draw(*args: Any, **more: Any) -> Any:
        random.random(), np.random.rand(), torch.rand(1)
        seen.append((student.training, torch.is_grad_enabled()))
        return own(*args, **more)

    monkeypatch.setattr(student, "generate", draw)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    continuations.of_cards(student, [row([1, 20], 5)], most=8)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert seen == [(False, False)]
    assert [module.training for module in student.modules()] == modes
    assert student.generation_config is settings
    assert all(torch.equal(one, other) for one, other in zip(student.parameters(), weights, strict=True))
    assert all(one.grad is None for one in student.parameters())


def test_what_stands_in_the_way_of_continuations_is_named(continuations: Continuations, student: Any) -> None:
    class Mute(nn.Module):
        pass

    assert continuations.hindrance(student) is None
    assert continuations.hindrance(Mute()) == ("notice.predicted_mute", {"model": "Mute"})
    accelerator = continuations.accelerator
    cached = Continuations(teacher=None, tokenizer=None, accelerator=accelerator)
    assert cached.hindrance(student) == ("notice.predicted_cached", {})
    assert Continuations(teacher=Mute(), tokenizer=None, accelerator=accelerator).hindrance(student) is not None


@pytest.mark.parametrize(
    ("given", "said", "share"),
    [
        ([5, 6], [6, 6, 6, 6], 1.0),  # the last given one, on and on
        ([5, 6], [7, 7, 8, 8], 0.5),
        ([5, 6], [5, 6, 5, 6], 1.0),  # the beginning itself
        ([5, 6, 7], [5, 6, 7, 5, 6, 9], 5 / 6),
        ([5, 6, 7], [7, 5, 6], 1 / 3),  # no cycle twice: only its first token repeats the one before it
        ([5, 6], [8, 9, 8, 9], 0.0),  # a cycle, but not of the beginning
        ([5, 6], [], 0.0),
        ([5], [5], 1.0),
    ],
)
def test_an_echo_repeats_the_token_before_it_or_the_beginning(given: list[int], said: list[int], share: float) -> None:
    assert echo(given, said) == pytest.approx(share)
