"""Records as lines: what is nested, what is not finite, what is too long."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.errors import DataError
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.parse import from_record
from apt_model.events.records import ExamTaken, Notice, RunStarted
from apt_model.events.results import ExamAnswer
from apt_model.events.runfile import (
    MAX_LINE,
    RunFile,
    encode,
    line_of,
    read_events,
    to_record,
)
from apt_model.events.tokens import TokenDetail
from tests.events.test_events import CARD, EVENTS

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=12)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
CANDIDATES = st.lists(st.tuples(ANY_TEXT, FLOATS).map(tuple), max_size=5).map(tuple)


def columns(item: st.SearchStrategy[Any], length: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(item, min_size=length, max_size=length).map(tuple)


@st.composite
def details(draw: st.DrawFn) -> TokenDetail:
    length = draw(st.integers(0, 4))
    return TokenDetail(
        teacher=draw(columns(ANY_TEXT, length)),
        student=draw(columns(ANY_TEXT, length)),
        kl_nats=draw(columns(FLOATS, length)),
        teacher_top=draw(columns(CANDIDATES, length)),
        student_top=draw(columns(CANDIDATES, length)),
        teacher_entropy=draw(st.one_of(st.just(()), columns(FLOATS, length))),
        student_entropy=draw(columns(FLOATS, length)),
    )


def through_a_line(event: Event) -> Event:
    return from_record(json.loads(line_of(to_record(event))))


@given(st.one_of(st.none(), details()), FLOATS, st.one_of(st.none(), FLOATS), ANY_TEXT)
def test_any_card_comes_back_as_it_was(detail: TokenDetail | None, loss: float, gap: float | None, text: str) -> None:
    card = replace(CARD, detail=detail, loss=loss, entropy_gap=gap, student_text=text)
    assert repr(through_a_line(card)) == repr(card)  # repr: NaN is not equal to itself


@given(st.lists(st.builds(ExamAnswer, prompt=ANY_TEXT, teacher=st.none() | ANY_TEXT, student=ANY_TEXT), max_size=3))
def test_any_exam_comes_back_as_it_was(answers: list[ExamAnswer]) -> None:
    exam = ExamTaken(run_id="r", step=3, wall_time=1.0, epoch=0, answers=tuple(answers))
    assert through_a_line(exam) == exam


@given(st.dictionaries(ANY_TEXT | st.sampled_from(["a.b", "a~1b", "~", ".", "0"]), FLOATS, max_size=4))
def test_a_key_with_a_dot_is_no_path(values: dict[str, float]) -> None:
    event = Notice(run_id="r", step=3, wall_time=1.0, key="k", values=values)
    assert repr(through_a_line(event)) == repr(event)


def test_a_number_deep_inside_that_is_not_finite_is_null_and_named_by_its_place() -> None:
    detail = detail_of(4)
    detail = replace(
        detail, kl_nats=(0.0, 1.0, 2.0, math.inf), teacher_top=((("a", math.nan),), *detail.teacher_top[1:])
    )
    record = json.loads(line_of(to_record(replace(CARD, detail=detail))))
    assert record["nonfinite"] == {"detail.kl_nats.3": "inf", "detail.teacher_top.0.0.1": "nan"}
    assert record["detail"]["kl_nats"] == [0.0, 1.0, 2.0, None]
    assert record["detail"]["teacher_top"][0] == [["a", None]]


@pytest.mark.parametrize("place", ["detail.kl_nats.9", "nowhere", "loss.deeper", "loss", "detail.kl_nats.x", ""])
def test_a_place_that_is_not_there_is_no_event(tmp_path: Path, place: str) -> None:
    record = to_record(replace(CARD, detail=detail_of(2))) | {"nonfinite": {place: "nan"}}
    (tmp_path / "events.jsonl").write_bytes(encode(record) + b"\n")
    with pytest.raises(DataError, match=r"events\.jsonl:1 is not an event"):
        list(read_events(tmp_path))


@pytest.mark.parametrize("detail", ["text", 3, {"teacher": "ab"}, {"teacher": [1]}, {"teacher_top": [["a"]]}, []])
def test_a_detail_of_another_shape_is_no_event(tmp_path: Path, detail: Any) -> None:
    good = to_record(replace(CARD, detail=detail_of(1)))
    if isinstance(detail, dict):
        detail = good["detail"] | detail
    (tmp_path / "events.jsonl").write_bytes(encode(good | {"detail": detail}) + b"\n")
    with pytest.raises(DataError, match=r"events\.jsonl:1 is not an event"):
        list(read_events(tmp_path))


def test_a_record_from_before_there_was_detail_still_reads() -> None:
    record = to_record(CARD)
    for new in ("detail", "entropy_gap"):
        del record[new]
    assert from_record(record) == CARD
    started = to_record(EVENTS[0])
    del started["vocabulary"]
    back = from_record(started)
    assert isinstance(back, RunStarted)
    assert back.vocabulary is None


def detail_of(tokens: int, text: str = "字") -> TokenDetail:
    top = ((text, 0.25),) * 5
    return TokenDetail(
        teacher=(text,) * tokens,
        student=(text,) * tokens,
        kl_nats=tuple(float(i) for i in range(tokens)),
        teacher_top=(top,) * tokens,
        student_top=(top,) * tokens,
        student_entropy=(0.5,) * tokens,
    )


def cut(event: Event) -> tuple[dict[str, Any], Event]:
    line = line_of(to_record(event))
    assert len(line) <= MAX_LINE == 65_536
    assert line.count(b"\n") == 1
    record = json.loads(line)
    return record, from_record(record)


def test_a_card_over_64_kb_loses_its_last_tokens_first_and_no_more_than_it_must() -> None:
    record, card = cut(replace(CARD, detail=detail_of(128, "长" * 40)))
    assert isinstance(card, ScoredObservation)
    assert card.detail is not None
    kept = len(card.detail.kl_nats)
    assert record["truncated"] == {"detail": 128}
    assert 0 < kept < 128
    assert card.detail == replace(detail_of(kept, "长" * 40))
    assert card.student_text == CARD.student_text
    one_more = to_record(replace(card, detail=detail_of(kept + 1, "长" * 40))) | {"truncated": record["truncated"]}
    assert len(encode(one_more)) >= MAX_LINE


def test_what_was_not_finite_among_the_lost_tokens_is_lost_too() -> None:
    detail = replace(detail_of(128, "长" * 40), kl_nats=(math.inf, *(1.0,) * 126, math.nan))
    record, card = cut(replace(CARD, detail=detail))
    assert record["nonfinite"] == {"detail.kl_nats.0": "inf"}
    assert isinstance(card, ScoredObservation)
    assert card.detail is not None
    assert card.detail.kl_nats[0] == math.inf


@pytest.mark.parametrize("character", ["a", "长", '"', "\ud800", "\x00", "😀"])
def test_texts_over_64_kb_keep_their_beginnings(character: str) -> None:
    texts = replace(CARD, student_text=character * 70_000, teacher_text=character * 9, detail=detail_of(3))
    record, card = cut(texts)
    assert isinstance(card, ScoredObservation)
    assert record["truncated"] == {"detail": 3, "student_text": 70_000}
    assert card.student_text.endswith("…")
    assert len(card.student_text) >= 4_096
    assert card.student_text[:-1] == character * (len(card.student_text) - 1)
    assert card.teacher_text == character * 9


def test_an_exam_of_long_answers_fits_too(tmp_path: Path) -> None:
    answers = tuple(ExamAnswer(prompt=f"{i}?", teacher="师" * 9_000, student="生" * 9_000) for i in range(8))
    exam = ExamTaken(run_id="r", step=3, wall_time=1.0, epoch=1, answers=answers)
    record, back = cut(exam)
    assert record["truncated"]["answers.7.student"] == 9_000
    assert isinstance(back, ExamTaken)
    assert [one.prompt for one in back.answers] == [f"{i}?" for i in range(8)]
    file = RunFile(tmp_path / "run")
    file.emit(exam)
    file.close()
    assert list(read_events(tmp_path / "run")) == [back]


@pytest.mark.parametrize(
    "foreign",
    [
        {"numbers": list(range(100_000)), "step": 5},
        {"detail": {"kl_nats": "no list"}, "texts": ["字" * 20] * 5_000, "step": 5},
        {"detail": list(range(100_000)), "step": 5},
        {**{f"key {index} " + "k" * 500: index for index in range(1_000)}, "step": 5},
        {"deep": {f"{a}": {f"{b}": "x" * 10 for b in range(300)} for a in range(300)}, "step": 5},
    ],
)
def test_a_record_of_another_program_is_cut_to_what_fits_whatever_its_form(foreign: dict[str, Any]) -> None:
    line = line_of({"kind": "card", "run_id": "r", **foreign})
    cut = json.loads(line)
    assert len(line) <= MAX_LINE
    assert "truncated" in cut
    assert (cut["kind"], cut["run_id"], cut["step"]) == ("card", "r", 5)
