"""Any damage to a record: what is whole is shown, what is not is named, and nothing raw comes out."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from apt_model.cli import main
from apt_model.dashboard.catalog import Catalog
from apt_model.dashboard.feed import _read_behind
from apt_model.dashboard.report import make_report
from apt_model.errors import AptModelError, DataError
from apt_model.events.event import Event
from apt_model.events.recorded import WholeEvents
from apt_model.events.runfile import EVENTS, read_events
from apt_model.i18n import Phrases
from apt_model.review.markdown import summary
from apt_model.review.run import Run
from tests.events.mutate import damaged_record, real_lines
from tests.strict_json import strict_json

QUICK, MANY, SEED = 20, 2_000, 18
LINES = real_lines()
SECONDS = 10


def damaged(count: int) -> Iterator[bytes]:
    dice = Random(SEED)
    for _ in range(count):
        yield damaged_record(dice, LINES)


def show_everywhere(run: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Read a record in every way that there is; whether it was found damaged."""
    record, named = run / EVENTS, None
    try:
        events = list(read_events(run))
    except DataError as error:
        named = str(error)
    assert named is None or (f"{record}:" in named and "\n" not in named)
    whole = WholeEvents(record)
    kept: list[Event] = []
    with suppress(DataError):  # not one line is an event
        kept = list(whole)
    assert (whole.damage is None) == (named is None)
    if whole.damage is None:
        assert kept == events or repr(kept) == repr(events)
    else:
        assert named is not None
        assert f"{record}:{whole.damage.line} is not an event" in named
    try:
        shown = Run(run, lang="en")
        repr(shown), shown._repr_html_(), shown.verdict, shown.steps, shown.name
    except AptModelError:
        assert named is not None
    for lang in ("zh", "en"):
        assert summary(kept, Phrases.load(lang), name="run", pictures={}, damage=whole.damage)
    capsys.readouterr()
    assert main(["replay", str(run), "--lang", "en"]) in (0, 3)
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == (named is not None or (not out and bool(err))), err
    assert "BUG" not in err
    html = make_report([good, run])
    told = html.partition('id="apt-data">')[2].partition("</script>")[0]
    first, second = strict_json(told.encode())["runs"]
    assert (first["damage"], len(first["events"])) == (None, len(LINES))
    assert (second["damage"] is None) == (named is None and events != [])
    offset, heard = 0, 0
    while (found := _read_behind(record, offset))[0] != offset:
        offset, messages = found
        for message in messages.split(b"\n\n")[:-1]:
            *_, data = message.split(b"\n")
            assert data.startswith(b"data: ")
            strict_json(data.removeprefix(b"data: "))
            heard += b"event: damaged" not in message
    assert heard == len(kept) or whole.damage is not None
    return named is not None


def try_all(count: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    good, run = folder / "good", folder / "run"
    for path in (good, run):
        path.mkdir()
    (good / EVENTS).write_bytes(b"".join(line + b"\n" for line in LINES))
    found = 0
    for number, record in enumerate(damaged(count)):
        (run / EVENTS).write_bytes(record)
        begun = time.monotonic()
        try:
            found += show_everywhere(run, good, capsys)
        except Exception as error:
            raise AssertionError(f"record {number} of seed {SEED}: {record[:2_000]!r}") from error
        assert time.monotonic() - begun < SECONDS, number
    return found


def test_a_record_damaged_in_any_way_is_shown_as_far_as_it_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert QUICK > try_all(QUICK, tmp_path, capsys) > QUICK / 2


NOTHING = {
    "empty": b"",
    "a cut line": LINES[0][:50],
    "a whole line without its end": LINES[0],
    "blank lines": b"\n\n",
    "blank lines and a cut one": b"\n\n" + LINES[0][:50],
}


@pytest.mark.parametrize("record", NOTHING.values(), ids=NOTHING)
def test_a_record_with_no_whole_event_is_one_line_with_its_file_and_the_page_waits(
    record: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, good = tmp_path / "run", tmp_path / "good"
    for path, content in ((run, record), (good, b"".join(line + b"\n" for line in LINES))):
        path.mkdir()
        (path / EVENTS).write_bytes(content)
    for argv in (["report", str(run)], ["report", str(run), "--markdown"], ["replay", str(run)]):
        code, (out, err) = main([*argv, "--lang", "en"]), capsys.readouterr()
        assert (code, out, len(err.splitlines())) == (3, "", 1)
        assert f"error[DATA]: no line of {run / EVENTS} is an event; got line 1: " in err
    assert sorted(path.name for path in run.iterdir()) == [EVENTS]
    assert main(["report", str(good), str(run), "--lang", "en", "-o", str(tmp_path / "page.html")]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1, "what is left out of the page"
    catalog = Catalog([run, good])
    listed = {one.name: one.damage for one in catalog.runs()}
    assert listed["good"] is None
    assert (listed["run"] is None) == (b"\n" not in record), "a run that has just begun has nothing whole yet"


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_two_thousand_records_damaged_in_any_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", MANY)
    assert try_all(MANY, tmp_path, capsys) > MANY / 2
