"""The CSV of a report: every curve of every run, one row a point, as written out here by hand."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from apt_model.cli import main
from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.results import MeanEstimate, ReadingSummary
from tests.dashboard import lessons


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def reading(step: int) -> Reading:
    mean = MeanEstimate(value=0.5, error=0.1)
    both = ReadingSummary(
        rows=2, tokens=9, agreement=mean, kl=mean, ce=mean, laziness=replace(mean, error=None), teacher_ce=None
    )
    return Reading(run_id="r", step=step, epoch=1, unseen=True, rows=(), measured=both)


def test_the_values_of_all_curves_are_one_csv_beside_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, *rest = lessons.lesson(10)
    again = lessons.card(5, 0.25)  # a second card of step 5, whose first is 1 - 5/10
    events: list[Event] = [start, *(event for event in rest if event.kind != "reading"), again, reading(10)]
    lessons.write(tmp_path / 'a "b", c', events)
    lessons.write(tmp_path / "plain", [start, lessons.step_done(1, loss=float("nan"))])
    runs = [str(tmp_path / name) for name in ('a "b", c', "plain")]
    assert main(["report", *runs, "-o", str(tmp_path / "out.html"), "--csv", "--lang", "en"]) == 0
    assert f"Values of the curves: {tmp_path / 'out.csv'}" in capsys.readouterr().out
    rows = rows_of(tmp_path / "out.csv")
    assert {row["run"] for row in rows} == {'a "b", c', "plain"}
    points = {(row["curve"], row["step"]): row for row in rows if row["run"] != "plain"}
    assert float(points["laziness", "5"]["value"]) == (0.5 + 0.25) / 2
    assert float(points["laziness_text", "10"]["value"]) == 0.0
    assert float(points["laziness_kl", "5"]["value"]) == pytest.approx(0.4 * 0.375)
    assert float(points["loss", "8"]["value"]) == 4.0 / 8
    assert float(points["tokens_per_second", "1"]["value"]) == 2_000.0
    ends = [float(points["unseen_agreement", "10"][name]) for name in ("low", "value", "high")]
    assert ends == pytest.approx([0.5 - 0.196, 0.5, 0.5 + 0.196])
    assert (points["loss", "1"]["low"], points["loss", "1"]["high"]) == ("", "")
    plain = [row["curve"] for row in rows if row["run"] == "plain"]
    assert plain == ["kd", "ce", "learning_rate", "grad_norm", "tokens_per_second"]  # its loss is not a number
