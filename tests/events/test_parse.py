"""What a line must be to be an event, and what a file must be to be a record: examples that fuzzing or people found."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from apt_model.dashboard.reading import HistoryReader
from apt_model.dashboard.tail import Tail
from apt_model.errors import DataError, StorageError
from apt_model.events.parse import LONGEST_LINE, event_of
from apt_model.events.recorded import Damage, WholeEvents, name_of
from apt_model.events.records import Notice, RunFinished, RunStarted
from apt_model.events.results import Advice
from apt_model.events.runfile import encode, read_events, to_record
from apt_model.i18n import Phrases
from apt_model.render.sentences import advised, notice, settings
from apt_model.review.run import Run
from tests.events.test_events import EVENTS, STEP

WHOLE = encode(to_record(STEP))


def with_value(key: str, raw: str) -> bytes:
    """The line of a step in which `raw` stands as a value."""
    mark = "\ue000"
    return json.dumps({**to_record(STEP), key: mark}, ensure_ascii=False).replace(f'"{mark}"', raw).encode()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"\xef\xbb\xbf" + WHOLE, "byte order mark"),
        (WHOLE.decode().encode("utf-16"), "utf-8"),
        (WHOLE[:-1] + b'"\xed\xa0\x80"}', "utf-8"),
        (with_value("loss", "NaN"), "NaN is no JSON"),
        (with_value("unknown", "-Infinity"), "-Infinity is no JSON"),
        (with_value("loss", "1e999"), "1e999 is beyond"),
        (with_value("unknown", "-1e999"), "-1e999 is beyond"),
        (with_value("loss", "9" * 400), "loss: .* is out of range"),
        (with_value("unknown", "9" * 5_000), "digits"),
        (with_value("unknown", "[" * 5_000 + "]" * 5_000), "nested too deep"),
        (with_value("unknown", "[" * 600 + "]" * 600), "unknown: more than 32"),
        (with_value("step", "-1"), "step: -1 is out of range"),
        (with_value("step", str(10**30)), "step: 10+ is out of range"),
        (with_value("step", "true"), "step: True is no int"),
        (with_value("epoch", '"1"'), "epoch: '1' is no int"),
        (with_value("wall_time", "null"), "wall_time: None is no float"),
        (with_value("wall_time", "true"), "wall_time: True is no float"),
        (with_value("run_id", "[]"), r"run_id: \[\] is no str"),
        (with_value("kind", "[]"), r"kind \[\]"),
        (with_value("nonfinite", "5"), "items"),
        (with_value("nonfinite", '{"loss":"5"}'), "which is finite"),
        (b'"' + b"x" * LONGEST_LINE + b'"', "more than 4,194,304 bytes"),
        (b"\x00" * 9, "Expecting value"),
        (b"", "Expecting value"),
    ],
)
def test_a_line_that_a_browser_or_a_reader_would_trip_over_is_no_event(tmp_path: Path, line: bytes, why: str) -> None:
    with pytest.raises(DataError, match=rf"not an event.*{why}"):
        event_of(line)
    record = tmp_path / "events.jsonl"
    record.write_bytes(b"\n".join([WHOLE, line, WHOLE, b""]))
    with pytest.raises(DataError, match=r"events\.jsonl:2 is not an event"):
        list(read_events(tmp_path))
    with pytest.raises(DataError, match=r"events\.jsonl:2 is not an event"):
        Run(tmp_path)
    whole = WholeEvents(record)
    assert list(whole) == [STEP, STEP]
    assert isinstance(whole.damage, Damage)
    assert (whole.damage.count, whole.damage.line) == (1, 2)
    page = json.loads(HistoryReader(record).page())
    assert [event["step"] for event in page["events"]] == [3, 3]
    assert (page["lines"], page["damage"]["line"]) == (3, 2)


@pytest.mark.parametrize("missing", ["run_id", "step", "wall_time", "loss", "kd"])
def test_a_line_without_a_field_is_no_event_and_no_time_is_made_up(missing: str) -> None:
    record = to_record(STEP)
    del record[missing]
    with pytest.raises(DataError, match=missing):
        event_of(encode(record))


def test_columns_of_different_lengths_are_no_card() -> None:
    detail = {"teacher": ["a", "b"], "student": ["a"], "kl_nats": [0.5, 0.5], "teacher_top": [], "student_top": []}
    card = next(one for one in EVENTS if one.kind == "card")
    with pytest.raises(DataError, match="differ in length"):
        event_of(encode({**to_record(card), "detail": detail}))


def test_what_a_newer_version_adds_to_a_line_is_passed_over() -> None:
    assert event_of(encode({**to_record(STEP), "new": {"deep": [[[1e300]]]}, "kinds": None})) == STEP


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "nowhere"])
def test_what_is_no_file_is_no_record_and_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    record = tmp_path / "events.jsonl"
    if kind == "pipe":
        os.mkfifo(record)
    elif kind == "folder":
        record.mkdir()
    elif kind == "loop":
        record.symlink_to(record)
    for read in (lambda: list(read_events(tmp_path)), lambda: list(WholeEvents(record)), lambda: Run(tmp_path)):
        with pytest.raises(StorageError, match="no record at"):
            read()
    tail = Tail(record)
    assert tail.read() == []
    assert (tail.trouble is None) == (kind == "nowhere")


def test_a_line_without_end_is_passed_over_when_its_end_comes_and_not_kept(tmp_path: Path) -> None:
    record = tmp_path / "events.jsonl"
    record.write_bytes(WHOLE + b"\n" + b"x" * (2 * LONGEST_LINE))
    tail = Tail(record)
    assert tail.read() == [(len(WHOLE) + 1, WHOLE)]
    assert tail.read() == []
    with record.open("ab") as file:
        file.write(b"x" * LONGEST_LINE + b"\n" + WHOLE + b"\n")
    ((end, line),) = tail.read()
    assert len(line) < LONGEST_LINE + 10
    assert tail.read() == [(record.stat().st_size, WHOLE)]
    assert end == record.stat().st_size - len(WHOLE) - 1
    assert list(WholeEvents(record)) == [STEP, STEP]
    assert tail.generation == 0


@pytest.mark.parametrize(
    ("name", "shown"),
    [("课程".encode("gbk"), "\\xbfγ\\xcc"), ("课程".encode(), "课程"), (b"caf\xe9", "caf\\xe9"), (b"run", "run")],
)
def test_the_name_of_a_folder_is_text_whatever_its_bytes(name: bytes, shown: str) -> None:
    assert name_of(Path(os.fsdecode(b"/runs/" + name))) == shown
    assert name_of(Path(os.fsdecode(b"/runs/" + name))).encode()


def test_a_record_names_sentences_and_settings_that_are_not_there() -> None:
    say = Phrases.load("en")
    assert advised(Advice(key='"excellent"'), say) == 'advice."excellent"'
    said = Notice(run_id="r", step=1, key="notice.no_cuda", values={"other": 1})
    assert notice(said, say) == "🔧 notice.no_cuda"
    assert notice(Notice(run_id="r", step=1, key="key", values={"key": 1, "turn": 2}), say) == "key"
    started = next(one for one in EVENTS if isinstance(one, RunStarted))
    assert "temperature=–" in settings(replace(started, config={}), say)[0]
    assert "\x1b" not in settings(replace(started, config={"temperature": "\x1b[2J"}), say)[0]


def test_the_last_line_of_a_damaged_record_still_tells_the_end(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"".join(encode(to_record(one)) + b"\n" for one in EVENTS) + b"\x00\x00\n")
    reader = HistoryReader(tmp_path / "events.jsonl")
    reader.catch_up()
    assert reader.history.finished
    assert isinstance(list(WholeEvents(tmp_path / "events.jsonl"))[-1], RunFinished)
