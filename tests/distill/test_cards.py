"""What a card shows: continuations or predictions, the beginning and the original line, and why."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from apt_model.config import LessonConfig
from apt_model.distill.inputs import Data, Models, Watching
from apt_model.distill.loop import distill
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.events.cards import Observation
from apt_model.events.records import Notice
from apt_model.events.sinks import Audience
from tests.distill.test_continuations import textbook

LINES = ["人工智能医疗教育经济文化", "互联网是全球最大的计算机网络。", "the network, is large", "the cat"]


class Reads(nn.Module):
    """A model that has no `generate`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


@pytest.fixture
def told(listener: Any, teacher: Any, student: Any, tokenizer: Any) -> Any:
    """The cards of a run of one epoch, with a student that does not change."""

    def run(batches: Any = (LINES,), validation: Any = None, **more: Any) -> list[Observation]:
        given = {"student": student, "teacher": teacher, "tokenizer": tokenizer}
        models = Models(**{name: more.pop(name, one) for name, one in given.items()})
        settings = {"num_epochs": 1, "learning_rate": 1e-30, "exam_tokens": 6, **more}
        distill(
            models,
            Data(train=list(batches), validation=validation),
            config=LessonConfig.from_dict(settings),
            device=torch.device("cpu"),
            watching=Watching(audience=Audience([listener])),
        )
        cards: list[Observation] = listener.of(Observation)
        return cards

    return run


def test_both_texts_go_on_from_the_same_beginning_and_stand_beside_the_line_itself(
    told: Any, teacher: Any, student: Any, tokenizer: Any
) -> None:
    (card,) = told()
    ids = [1, *tokenizer(LINES[0])["input_ids"]]
    assert (card.card_text, card.given, card.original) == ("continued", LINES[0][:4], LINES[0][4:10])
    assert card.teacher_text == tokenizer.decode(textbook(teacher, ids[:5], 6), skip_special_tokens=True)
    said = textbook(student, ids[:5], 6)
    assert card.student_text == tokenizer.decode(said, skip_special_tokens=True)
    assert card.tokens == len(LINES[0]) - 4 + 1, "the numbers are of all tokens of the line, and its end"
    assert card.token_ids is None


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"sample_frequency": 9}, "predicted"),
        ({"sample_frequency": 10}, "continued"),
        ({"sample_frequency": 10, "card_text": "predicted"}, "predicted"),
        ({"sample_frequency": 1, "card_text": "continued"}, "continued"),
        ({"show_on": "validation", "validation": [LINES[:2]]}, "continued"),
        ({"on_policy": 1.0, "on_policy_tokens": 5}, "continued"),
        ({"num_epochs": 20}, "continued"),
        ({"num_epochs": 21}, "predicted"),  # each epoch of a single batch begins with a card
        ({"num_epochs": 21, "batches": [LINES] * 10}, "continued"),
    ],
)
def test_cards_go_on_where_they_are_rare_or_where_that_is_asked_for(settings: Any, kind: str, told: Any) -> None:
    card = told(**settings)[0]
    assert card.card_text == kind
    assert bool(card.original) == ("on_policy" not in settings), "a text of the student's own is no original"
    assert card.gain is not None
    assert 0 <= card.echo <= 1


def test_the_numbers_of_a_card_are_those_of_the_step_whatever_texts_it_shows(
    told: Any, listener: Any, tokenizer: Any
) -> None:
    (one,) = told(card_text="predicted")
    listener.events.clear()
    (other,) = told(card_text="continued")
    for name in (
        "normalised_kl",
        "agreement",
        "detail",
        "entropy_gap",
        "kd_pull",
        "ce_pull",
        "softness",
        "gain",
        "tokens",
    ):
        assert getattr(one, name) == getattr(other, name)
    assert one.original == LINES[0][4:]
    assert one.teacher_text == "".join(one.detail.teacher)
    ids = tokenizer(LINES[0])["input_ids"][3:]
    guessed = one.detail.student
    assert one.echo == sum(tokenizer.decode([fed]) == word for fed, word in zip(ids, guessed, strict=True)) / len(ids)


@pytest.mark.parametrize("why", ["teacher", "student", "cache"])
def test_who_asks_for_continuations_that_cannot_be_is_told_why_once(
    why: str, told: Any, listener: Any, teacher: Any, student: Any, tokenizer: Any, tmp_path: Path
) -> None:
    rows = [{"input_ids": [5, 6, 7, 8, 9, 10]}, {"input_ids": [9, 8, 7, 6]}]
    more: dict[str, Any] = {"batches": [rows, rows]}
    if why == "cache":
        settings = CacheSettings(k=64, temperature=4.0, value_type="float16", max_length=32, packing=False)
        CacheWriter(teacher, rows, settings=settings).run(tmp_path)
        more["teacher"] = CachedTeacher(tmp_path)
    else:
        more[why] = Reads({"teacher": teacher, "student": student}[why])
    for asked in ("auto", "continued"):
        listener.events.clear()
        cards = told(sample_frequency=1 if asked == "continued" else 10, card_text=asked, **more)
        assert {card.card_text for card in cards} == {"predicted"}
        said = [(one.key, one.values) for one in listener.of(Notice) if one.key.startswith("notice.predicted")]
        mute = ("notice.predicted_mute", {"model": "Reads"})
        assert said == ([] if asked == "auto" else [("notice.predicted_cached", {}) if why == "cache" else mute])


def test_a_model_that_fails_to_go_on_is_told_of_and_cards_show_predictions(
    told: Any, listener: Any, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(*_: Any, **__: Any) -> Any:
        calls.append(1)
        raise RuntimeError("no voice today")

    monkeypatch.setattr(student, "generate", fail)
    cards = told([LINES] * 3, sample_frequency=1, card_text="continued")
    assert [card.card_text for card in cards] == ["predicted"] * 3
    assert len(calls) == 1
    (failed,) = [one for one in listener.of(Notice) if one.key == "notice.display_failed"]
    assert "no voice today" in failed.values["failure"]


def test_without_a_start_token_the_first_token_is_given_too(told: Any, tokenizer: Any) -> None:
    ids = torch.tensor([tokenizer(LINES[0])["input_ids"]])
    (card,) = told([ids])
    assert (card.given, card.original) == (LINES[0][:4], LINES[0][4:10])


def test_a_chat_shows_the_end_of_its_prompt_and_goes_on_from_all_of_it(told: Any, teacher: Any, chatty: Any) -> None:
    question = "a" * 20 + "the network"
    rows = [{"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": LINES[2]}]}]
    (card,) = told([rows], tokenizer=chatty)
    assert card.given == f"user {question}assistant "
    assert card.original == LINES[2][:6]
    given = chatty.apply_chat_template(rows[0]["messages"][:1], add_generation_prompt=True, tokenize=False)
    ids = chatty(given, add_special_tokens=False)["input_ids"]
    assert card.teacher_text == chatty.decode(textbook(teacher, ids, 6), skip_special_tokens=True)


def test_where_there_is_no_text_the_card_has_token_ids(told: Any, teacher: Any, listener: Any) -> None:
    class DummyTokenizer:
        """The guide's."""

        def decode(self, token_ids: list[int], **_: Any) -> str:
            return f"文本 (tokens: {len(token_ids)})"

    class Breaks:
        def decode(self, token_ids: list[int], **_: Any) -> str:
            raise ValueError("cannot read")

    class Names:
        def decode(self, token_ids: list[int], **_: Any) -> str:
            return "".join(chr(0x4E00 + token) for token in token_ids)

    ids = torch.arange(5, 25).view(1, 20)
    for tokenizer, is_text in ((None, False), (DummyTokenizer(), False), (Breaks(), False), (Names(), True)):
        for kind in ("continued", "predicted"):
            listener.events.clear()
            (card,) = told([ids], tokenizer=tokenizer, card_text=kind)
            assert card.card_text == kind
            assert (card.token_ids is None) == is_text
            if kind == "continued" and not is_text:
                assert list(card.token_ids[0]) == textbook(teacher, list(range(5, 9)), 6)


@pytest.mark.parametrize("card_text", ["continued", "predicted"])
def test_dropout_is_not_counted_against_a_student_that_is_its_teacher(
    card_text: str, told: Any, make_model: Any
) -> None:
    teacher = make_model(seed=1, attention_dropout=0.5)
    (card,) = told(teacher=teacher, student=copy.deepcopy(teacher), card_text=card_text)
    assert (card.agreement, card.normalised_kl, card.gain) == (1.0, 0.0, 0.0)
    assert card.teacher_text == card.student_text
    assert card.kd_pull is not None
