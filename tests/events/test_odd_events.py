"""An event whose fields hold what their types allow, and no run of ours would write, is shown all the same."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from random import Random

import pytest

from apt_model.config import LessonConfig
from apt_model.errors import DataError
from apt_model.events.event import Event
from apt_model.events.parse import event_of
from apt_model.events.records import EpochFinished, RunFinished, RunStarted
from apt_model.i18n import Phrases
from apt_model.render.html import HtmlPainter
from apt_model.render.readings import reported
from apt_model.render.sentences import duration
from apt_model.render.terminal import TerminalSink
from apt_model.review.markdown import summary
from tests.events.mutate import EXTREMES, holders, keys, real_lines

LINES = real_lines()
EVENTS = [event_of(line) for line in LINES]
FIRST_OF_KIND = {event.kind: at for at, event in reversed(list(enumerate(EVENTS)))}
QUICK, SEED = 60, 18


def odd_lines() -> Iterator[tuple[int, bytes]]:
    """Of the first event of each kind, every field at every end of its type; its place, and the line."""
    for at in FIRST_OF_KIND.values():
        whole = json.loads(LINES[at])
        for number, holder in enumerate(holders(whole)):
            for key in keys(holder)[:40]:
                for odd in EXTREMES[type(holder[key])]:
                    record = json.loads(LINES[at])
                    holders(record)[number][key] = odd
                    yield at, json.dumps(record).encode()
                if isinstance(holder[key], float) and number == 0:
                    for name in ("nan", "inf", "-inf"):
                        yield at, json.dumps({**whole, key: None, "nonfinite": {key: name}}).encode()


def events_of(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Event]]:
    for at, line in lines:
        with suppress(DataError):
            yield at, event_of(line)


def show(at: int, odd: Event) -> None:
    """The lesson with the odd event in its place, as a summary, on a terminal, and in a notebook."""
    events = [*EVENTS[:at], odd, *EVENTS[at + 1 :]]
    for lang in ("zh", "en"):
        assert summary(events, Phrases.load(lang), name="run", pictures={})
    sink = TerminalSink(LessonConfig.from_dict({"show_diff": True}).display, file=io.StringIO(), live=False)
    for event in (EVENTS[0], odd, *(one for one in EVENTS if isinstance(one, EpochFinished | RunFinished))):
        sink.emit(event)
    paint = HtmlPainter(Phrases.load("zh"))
    paints: Mapping[type[Event], Callable[[], str]] = {
        RunStarted: lambda: paint.header(odd),  # type: ignore[arg-type]
        RunFinished: lambda: paint.verdict(odd),  # type: ignore[arg-type]
    }
    assert paints.get(type(odd), lambda: paint.report_cards(reported(events), left_out=0))()


def test_a_field_at_the_end_of_its_type_is_shown() -> None:
    lines = list(odd_lines())
    assert len(lines) > 1_000
    for at, odd in events_of(Random(SEED).sample(lines, QUICK)):
        show(at, odd)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_every_field_at_every_end_of_its_type_is_shown() -> None:
    for at, odd in events_of(odd_lines()):
        show(at, odd)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf"), -5.0])
def test_what_is_no_time_is_a_dash(seconds: float) -> None:
    assert duration(seconds) == "–"
