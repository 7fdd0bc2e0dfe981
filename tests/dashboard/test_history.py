"""A long record becomes a short one: the extremes, the ends and what was not finite stay; its size is bounded."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from apt_model.dashboard.history import CARDS, OTHERS, OTHERS_BYTES, STEPS, History, latest
from apt_model.dashboard.reading import HistoryReader
from apt_model.dashboard.tail import Line, Tail, whole_lines
from apt_model.dashboard.thinning import Thinned
from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, Notice
from apt_model.events.results import RowReading, TextPair, Validation
from apt_model.events.runfile import encode, to_record
from apt_model.events.tokens import TokenDetail
from tests.dashboard.kit import card, step, verdict, write


def told(events: Iterable[Event]) -> History:
    history, place = History(), 0
    for event in events:
        line = encode(to_record(event))
        place += len(line) + 1
        history.add([(place, line)])
    return history


def shown(history: History, **how: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in history.lines(**how)]


def test_a_short_lesson_is_kept_whole_and_in_order() -> None:
    events: list[Event] = [made for n in range(1, 150) for made in (step(n, loss=1 / n), card(n, 1 / n))]
    events.append(verdict(149))
    assert shown(told(events)) == [to_record(event) for event in events]


def test_of_many_steps_the_extremes_of_every_stretch_stay() -> None:
    dice = random.Random(0)
    losses = [2 + dice.random() for _ in range(20_000)]
    losses[777], losses[12_345] = 99.0, 0.001
    norms = [1.0] * 20_000
    norms[5_000] = 50.0
    history = told(
        step(n + 1, loss=loss, grad_norm=norm) for n, (loss, norm) in enumerate(zip(losses, norms, strict=True))
    )
    kept = {record["step"]: record for record in shown(history)}
    assert {1, 778, 5_001, 12_346, 20_000} <= kept.keys()
    assert STEPS < len(kept) <= 3 * STEPS + 2
    assert list(kept) == sorted(kept)
    width = 32  # 20,000 steps in at most 1,200 buckets
    for begin in range(0, 20_000, width):
        stretch = range(begin, min(begin + width, 20_000))
        assert max(stretch, key=losses.__getitem__) + 1 in kept
        assert min(stretch, key=losses.__getitem__) + 1 in kept


def test_a_loss_that_was_not_finite_stays_among_many() -> None:
    history = told(step(number, loss=float("nan") if number == 4_321 else 1.0) for number in range(1, 10_001))
    (odd,) = [record for record in shown(history) if record["loss"] is None]
    assert (odd["step"], odd["nonfinite"]["loss"]) == (4_321, "nan")


def test_of_many_cards_the_laziest_and_the_least_lazy_stay() -> None:
    dice = random.Random(1)
    laziness = [dice.random() for _ in range(5_000)]
    kept = {record["step"] for record in shown(told(card(n + 1, lazy) for n, lazy in enumerate(laziness)))}
    assert {1, laziness.index(max(laziness)) + 1, laziness.index(min(laziness)) + 1, 5_000} <= kept
    assert CARDS < len(kept) <= 2 * CARDS + 2


def test_notices_are_thinned_too_but_never_the_beginning_or_the_verdict() -> None:
    notices = [Notice(run_id="r", step=n, key="notice.spike", values={"text": "x" * 1_000}) for n in range(5_000)]
    records = shown(told([*notices, verdict(5_000)]))
    assert [record["step"] for record in records[-2:]] == [4_999, 5_000]
    assert records[0]["step"] == 0
    assert 100 < len(records) <= OTHERS + 3
    assert sum(len(encode(record)) for record in records) < 1.2 * OTHERS_BYTES


def epoch(number: int) -> EpochFinished:
    pairs = tuple(TextPair(teacher_text="老" * 500, student_text="学" * 500, normalised_kl=0.5) for _ in range(8))
    validation = Validation(loss=1.0, kd=1.0, ce=1.0, agreement=0.5, tokens=9, pairs=pairs)
    return EpochFinished(
        run_id="r", step=number, epoch=number, num_epochs=30, mean_loss=1.0, tokens=9, skipped_batches=0, seconds=1.0,
        validation=validation,
    )  # fmt: skip


def test_details_go_before_cards_do_evenly_and_the_newest_keeps_them() -> None:
    history, tokens = History(), 300
    top = (("字", 0.5),)
    detail = TokenDetail(
        teacher=("字",) * tokens,
        student=("字",) * tokens,
        kl_nats=(0.5,) * tokens,
        teacher_top=(top,) * tokens,
        student_top=(top,) * tokens,
    )
    for number in range(1, 101):
        history.add([(number, encode(to_record(card(number, detail=detail))))])
    history.add((100 + number, encode(to_record(epoch(number)))) for number in range(1, 11))
    whole, tight = shown(history), shown(history, largest=200_000)
    assert len(whole) == len(tight) == 110
    assert all(record.get("detail") for record in whole[:100])
    assert sum(len(encode(record)) for record in tight) < 200_000
    cards = [record["step"] for record in tight[:100] if record.get("detail")]
    gaps = {later - earlier for earlier, later in pairwise(cards)}
    assert len(cards) > 5
    assert len(gaps) == 1
    assert len(tight[-1]["validation"]["pairs"]) == 8
    assert tight[-2]["validation"]["pairs"] == []


def test_the_same_history_comes_of_lines_one_by_one_and_all_at_once() -> None:
    lines: list[Line] = [(n, encode(to_record(step(n, loss=(n * 7919) % 1_000)))) for n in range(1, 5_000)]
    one, all_at_once = History(), History()
    all_at_once.add(lines)
    for line in lines:
        one.add([line])
        one.lines()  # to be asked in between changes nothing
    assert one.lines() == all_at_once.lines()


def test_thinning_keeps_the_bound_it_was_given() -> None:
    thinned = Thinned(8, (latest,), largest=1_000)
    for place in range(1_000):
        thinned.add(place, {}, b"x" * 100)
        assert len(thinned.kept()) <= 10
        assert sum(map(len, thinned.kept().values())) <= 1_300


def test_a_reading_keeps_up_and_begins_again_where_the_record_was_cut_back(tmp_path: Path) -> None:
    path = write(tmp_path / "run", step(1), step(2))
    reading = HistoryReader(path)
    page = json.loads(reading.page())
    assert (page["offset"], [event["step"] for event in page["events"]]) == (path.stat().st_size, [1, 2])
    write(tmp_path / "run", step(3))
    assert [event["step"] for event in json.loads(reading.page())["events"]] == [1, 2, 3]
    path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")
    assert [event["step"] for event in json.loads(reading.page())["events"]] == [1]
    assert reading.history.steps == 1
    path.unlink()
    assert json.loads(reading.page()) == {"offset": 0, "lines": 0, "damage": None, "events": []}


@pytest.mark.parametrize("limit", [1, 7, 64, 1 << 20])
def test_a_tail_gives_every_line_once_whatever_it_reads_at_a_time(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "events.jsonl"
    lines = [b"a" * length for length in (0, 1, 6, 7, 8, 200, 3)]
    path.write_bytes(b"\n".join(lines) + b"\nhalf")
    tail, found = Tail(path), []
    while some := tail.read(limit):
        found += some
    assert [line for _, line in found] == lines
    assert found[-1][0] == tail.offset == path.stat().st_size - 4 == whole_lines(path)
    with path.open("ab") as file:
        file.write(b"\n")
    assert tail.read(limit) == [(path.stat().st_size, b"half")]
    assert tail.generation == 0


def test_another_file_in_the_place_of_the_record_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "run", step(1))
    tail = Tail(path)
    assert len(tail.read()) == 1
    other = write(tmp_path / "other", step(1), step(2))
    other.replace(path)
    assert tail.read() == []
    assert tail.generation == 1
    assert len(tail.read()) == 2


def test_a_place_behind_the_end_of_the_record_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "run", step(1))
    tail = Tail(path, path.stat().st_size + 5)
    assert tail.read() == []
    assert tail.generation == 1
    assert len(tail.read()) == 1


def test_of_many_readings_both_kinds_stay_evenly() -> None:
    row = RowReading(tokens=9, kl=0.5, normalised_kl=0.4, agreement=0.5, ce=2.0, teacher_ce=1.5, echo=0.0)
    read = Reading(run_id="r", step=0, wall_time=1.0, epoch=0, unseen=True, rows=(row,) * 32)
    kept = shown(told(replace(read, step=n, unseen=unseen) for n in range(1_000) for unseen in (True, False)))
    steps = [[record["step"] for record in kept if record["unseen"] is unseen] for unseen in (True, False)]
    for one in steps:
        assert (one[0], one[-1]) == (0, 999)
        assert len(one) > 50
        assert max(later - earlier for earlier, later in pairwise(one)) <= 16
