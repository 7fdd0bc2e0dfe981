"""Records, the run file, series, and sinks that fail."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.errors import DataError, StorageError
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.parse import from_record
from apt_model.events.records import EpochFinished, ModelCard, Notice, RunFinished, RunStarted, StepDone
from apt_model.events.results import Advice, MeanEstimate, ReadingSummary, TopicScore, Validation
from apt_model.events.runfile import RunFile, encode, read_events, to_record
from apt_model.events.series import BoundedSeries
from apt_model.events.sinks import Audience
from tests.conftest import Listener

MODEL = ModelCard(name="M", parameters=10, megabytes=1.5)
STEP = StepDone(
    run_id="r",
    step=3,
    wall_time=1.0,
    epoch=1,
    batch=2,
    loss=0.5,
    kd=0.4,
    ce=0.7,
    learning_rate=1e-3,
    grad_norm=2.0,
    tokens=40,
    step_seconds=0.1,
    skipped_batches=0,
)
CARD = ScoredObservation(
    run_id="r",
    step=3,
    wall_time=1.0,
    epoch=1,
    batch=0,
    loss=1.5,
    given="互",
    teacher_text="联网\ud800",
    student_text="\x1b[2J",
    input_text="互联网",
    normalised_kl=0.5,
    agreement=0.25,
    tokens=4,
    similarity=0.4,
    laziness=0.56,
    light="yellow",
    topic="互联网",
    remark="好",
)
EVENTS: list[Event] = [
    RunStarted(
        run_id="r",
        step=0,
        wall_time=1.0,
        teacher=MODEL,
        student=MODEL,
        config={"alpha": 0.7, "excellent": [0.2, 0.5]},
        num_epochs=1,
        total_steps=None,
        device="cpu",
        laziness_scale=LazinessScale(green_below=0.25),
    ),
    STEP,
    CARD,
    EpochFinished(
        run_id="r",
        step=3,
        wall_time=1.0,
        epoch=1,
        num_epochs=1,
        mean_loss=None,
        tokens=0,
        skipped_batches=1,
        seconds=1.0,
        topics=(TopicScore(topic="t", samples=1, mean_laziness=0.5),),
    ),
    Notice(run_id="r", step=3, wall_time=1.0, key="notice.no_cuda", values={"device": "cuda"}),
    RunFinished(
        run_id="r",
        step=3,
        wall_time=1.0,
        epochs=1,
        tokens=40,
        skipped_batches=0,
        seconds=2.0,
        first_loss=1.0,
        last_loss=0.5,
        advice=(Advice(key="good"), Advice(key="laziest_topic", topic="科技")),
    ),
]

HOSTILE = b'{"schema":1,"kind":"epoch_started","run_id":"r","step":0,"wall_time":1,"epoch":"\\u001b[2J","num_epochs":1}'
TRUE = b'{"schema":1,"kind":"epoch_started","run_id":"r","step":true,"wall_time":1,"epoch":1,"num_epochs":1}'


def test_the_verdict_shows_itself_in_one_line() -> None:
    verdict = EVENTS[-1]
    assert isinstance(verdict, RunFinished)
    assert repr(verdict) == "RunFinished(epochs=1, steps=3, loss 1 → 0.5, 2.0 s)"
    seen = Validation(loss=0.52, kd=0.1, ce=1.2, agreement=0.62, tokens=9, pairs=())
    whole = replace(verdict, first_laziness=0.939, last_laziness=0.07, validation=seen, failures=("viewer: gone",))
    assert repr(whole) == (
        "RunFinished(epochs=1, steps=3, laziness 93.9% → 7.0%, loss 1 → 0.5, validation loss 0.52, agreement 62.0%, "
        "2.0 s, display failures=1)"
    )
    mean = MeanEstimate(value=0.463, error=0.01)
    read = ReadingSummary(rows=32, tokens=900, agreement=mean, kl=mean, ce=mean, laziness=mean, teacher_ce=None)
    assert "steps=3, agreement on unseen text 46.3%, loss 1" in repr(replace(verdict, unseen=read))
    assert whole == replace(whole)
    assert whole != verdict


def test_the_address_of_the_page_is_not_kept(tmp_path: Path) -> None:
    record = RunFile(tmp_path / "run")
    record.emit(Notice(run_id="r", step=0, key="watch.attached", values={"url": "http://127.0.0.1:1/"}))
    record.emit(STEP)
    record.close()
    assert list(read_events(tmp_path / "run")) == [STEP]


def test_every_event_comes_back_from_the_file_as_it_was(tmp_path: Path) -> None:
    record = RunFile(tmp_path / "run")
    for event in EVENTS:
        record.emit(event)
    record.close()
    assert list(read_events(tmp_path / "run")) == EVENTS
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["advice"][1]["topic"] == "科技"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["alpha"] == 0.7
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "events.jsonl", "summary.json"]


def test_numbers_that_are_not_finite_become_null_with_a_flag_and_come_back() -> None:
    record = to_record(replace(STEP, loss=math.nan, grad_norm=math.inf))
    assert (record["loss"], record["grad_norm"]) == (None, None)
    assert record["nonfinite"] == {"loss": "nan", "grad_norm": "inf"}
    back = from_record(json.loads(encode(record)))
    assert isinstance(back, StepDone)
    assert math.isnan(back.loss)
    assert back.grad_norm == math.inf


@given(st.text(st.characters(codec=None, categories=None), max_size=50))
def test_any_text_is_one_line_of_the_file(text: str) -> None:
    line = encode({"text": text})
    assert b"\n" not in line
    assert json.loads(line)["text"] == text


def test_a_record_from_before_laziness_had_a_scale_is_read_and_makes_none_up() -> None:
    record = to_record(EVENTS[0])
    assert record.pop("laziness_scale")["green_below"] == 0.25
    assert from_record(record) == replace(EVENTS[0], laziness_scale=None)  # type: ignore[call-arg]


def test_a_reader_stops_at_the_last_whole_line(tmp_path: Path) -> None:
    lines = [encode(to_record(event)) for event in EVENTS[:2]]
    (tmp_path / "events.jsonl").write_bytes(lines[0] + b"\n" + lines[1][:20])
    assert list(read_events(tmp_path)) == EVENTS[:1]


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"nonsense",
        b'{"schema": 99, "kind": "step"}',
        b'{"schema": 1, "kind": "step"}',
        b"\xff",
        HOSTILE,
        TRUE,
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "events.jsonl").write_bytes(line + b"\n")
    with pytest.raises(DataError, match=r"events\.jsonl:1 is not an event"):
        list(read_events(tmp_path))


def test_a_run_directory_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    RunFile(tmp_path).close()
    with pytest.raises(StorageError, match="already holds a run") as caught:
        RunFile(tmp_path)
    assert caught.value.exit_code == 5
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        RunFile(tmp_path / "file" / "run")
    with pytest.raises(StorageError, match="no record"):
        list(read_events(tmp_path / "nowhere"))


class Broken(Listener):
    def emit(self, event: Event) -> None:
        super().emit(event)
        raise RuntimeError("no ink")


def test_a_sink_that_fails_is_told_of_once_and_detached_and_the_others_go_on(listener: Listener) -> None:
    broken = Broken()
    audience = Audience([broken, listener])
    for event in (STEP, STEP, EVENTS[-1]):
        audience(event)
    assert len(broken.events) == 1
    assert len(listener.of(StepDone)) == 2
    (notice,) = listener.of(Notice)
    assert notice.values["failure"] == "Broken: RuntimeError: no ink"
    assert listener.of(RunFinished)[0].failures == ("Broken: RuntimeError: no ink",)


def test_the_last_sink_that_fails_is_told_of_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    audience = Audience([Broken()])
    audience(STEP)
    audience(STEP)
    assert capsys.readouterr().err.count("no ink") == 1


def test_a_scorer_that_fails_lets_the_plain_event_through(listener: Listener) -> None:
    def scorer(event: Event) -> Event:
        raise ValueError("no opinion")

    assert Audience([listener], scorer=scorer)(STEP) is STEP
    assert listener.of(StepDone) == [STEP]


def test_an_interrupt_is_never_swallowed() -> None:
    class Interrupted(Listener):
        def emit(self, event: Event) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Audience([Interrupted()])(STEP)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=300))
def test_a_bounded_series_keeps_mean_and_count_whatever_its_length(values: list[float]) -> None:
    series = BoundedSeries(capacity=8)
    for value in values:
        series.add(value)
    assert series.count == len(values)
    assert series.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert len(series._sums) <= 8


def test_the_ends_of_a_series_are_the_means_of_its_first_and_last_part() -> None:
    series = BoundedSeries(capacity=16)
    assert series.ends(0.25) is None
    for value in range(1000):
        series.add(float(value))
    series.add(math.nan)
    first, last = series.ends(0.25) or (0, 0)
    assert first == pytest.approx(125, abs=40)
    assert last == pytest.approx(875, abs=40)
