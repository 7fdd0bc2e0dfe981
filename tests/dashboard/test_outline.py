"""The list of runs tells what the table of runs shows, and reads no long record whole for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_model.dashboard import catalog
from apt_model.dashboard.catalog import Catalog
from apt_model.dashboard.outline import Outline
from apt_model.events.cards import Reading
from apt_model.events.records import RunFinished
from apt_model.events.results import MeanEstimate, ReadingSummary
from tests.dashboard import lessons


def reading(step: int, agreement: float, *, unseen: bool = True) -> Reading:
    mean = MeanEstimate(value=agreement, error=None)
    measured = ReadingSummary(rows=4, tokens=90, agreement=mean, kl=mean, ce=mean, laziness=mean, teacher_ce=None)
    return Reading(run_id="r", step=step, epoch=1, unseen=unseen, rows=(), measured=measured)


def outline(run: Path) -> dict[str, Any]:
    """As the first listing tells it."""
    (listed,) = Catalog([run]).runs()
    told: dict[str, Any] = listed.to_record()["outline"]
    return told


def test_a_finished_run_is_told_from_its_first_line_and_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "CHECK_SECONDS", -1.0)  # nothing in between is looked through
    events = [
        replace(one, unseen=reading(60, 0.75).measured) if isinstance(one, RunFinished) else one
        for one in lessons.lesson()
    ]
    told = outline(lessons.write(tmp_path / "run", events))
    assert told["started"]["teacher"] == {"name": "teacher", "parameters": 4_000_000}
    assert told["started"]["config"] == {"temperature": 2.0, "alpha": 0.7, "beta": 0.3}
    assert (told["measured"]["agreement"]["value"], told["validation"]) == (0.75, None)
    assert told["finished"] == {"grade": None, "trend": "great_progress", "last_laziness": 0.08}


def test_a_run_that_goes_on_is_told_by_its_latest_held_out_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = lessons.started(100)
    path = lessons.write(tmp_path / "run", [start, reading(1, 0.25), lessons.step_done(2)])
    one = Catalog([path])
    assert one.runs()[0].outline.to_record()["measured"]["agreement"]["value"] == 0.25
    lessons.write(path, [reading(3, 0.5), reading(3, 0.9, unseen=False), lessons.step_done(4)], resumes=True)
    monkeypatch.setattr(catalog, "FRESH_SECONDS", 0.0)
    told = one.runs()[0].outline.to_record()
    assert told["measured"]["agreement"]["value"] == 0.5
    assert told["finished"] is None


def test_a_record_without_a_beginning_has_an_outline_of_nothing(tmp_path: Path) -> None:
    told = outline(lessons.write(tmp_path / "run", [lessons.step_done(1)]))
    assert told == Outline().to_record()
    assert told == {"started": None, "measured": None, "validation": None, "finished": None}
