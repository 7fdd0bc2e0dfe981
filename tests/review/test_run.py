"""A recorded lesson looked at again: as an object, as plots, as Markdown. Real records, real pictures."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import apt_model
from apt_model.cli import main
from apt_model.errors import ConfigError, StorageError
from apt_model.events.cards import ScoredObservation
from apt_model.events.records import EpochFinished, RunFinished, StepDone
from apt_model.i18n import Phrases
from apt_model.review import fonts, plots
from apt_model.review.markdown import write_summary
from apt_model.review.run import Run
from tests.dashboard import lessons


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return lessons.write(tmp_path / "runs" / "a $lesson_1$", lessons.lesson())


def test_a_run_is_its_events_by_kind(run: Path) -> None:
    events = list(lessons.lesson())
    found = apt_model.Run(run)
    assert [event.kind for event in found.events] == [event.kind for event in events]
    for mine, kind in ((found.steps, StepDone), (found.cards, ScoredObservation), (found.epochs, EpochFinished)):
        assert [one.step for one in mine] == [event.step for event in events if type(event) is kind]
    assert isinstance(found.verdict, RunFinished)
    assert repr(found).endswith("60 steps, 12 cards, finished)")


def test_a_run_that_goes_on_shows_what_there_is_by_now(tmp_path: Path) -> None:
    events = list(lessons.lesson())
    path = lessons.write(tmp_path / "run", events[:10])
    found = Run(path)
    before = len(found.steps)
    assert found.verdict is None
    lessons.write(path, events[10:], resumes=True)
    assert len(found.steps) == 60 > before


def test_frames_have_the_records_numbers(run: Path) -> None:
    steps, cards = Run(run).to_pandas()
    assert list(steps.index) == list(range(1, 61))
    assert steps.loc[4, "loss"] == pytest.approx(1.0)
    assert list(cards["laziness"]) == pytest.approx([card.laziness for card in lessons.cards()])
    assert "detail" not in cards.columns


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_plot_is_drawn_with_letters_that_are_there(run: Path, lang: str, recwarn: Any) -> None:
    found = Run(run, lang=lang)
    figure = found.plot()
    figure.canvas.draw()
    assert len(figure.axes) >= len(plots.panels(found.events)) >= 4
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]
    assert plots.png(figure).startswith(b"\x89PNG")


def test_a_curve_is_the_losses_themselves(run: Path) -> None:
    (axes,) = Run(run).plot("losses").axes
    drawn = {tuple(line.get_ydata()) for line in axes.get_lines()}
    assert any(ys == pytest.approx([4.0 / step for step in range(1, 61)]) for ys in drawn)


def test_a_plot_that_is_not_there_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="losses"):
        Run(run).plot("lossess")


def test_chinese_is_drawn_with_a_font_of_ours_and_pictures_are_left_out() -> None:
    assert "Apt Sans SC" in fonts.families("蒸馏教师学生偷懒程度")
    assert fonts.drawable("偷懒 📉 42%") == "偷懒 42%"


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_summary_names_the_verdict_and_links_pictures_that_exist(run: Path, tmp_path: Path, lang: str) -> None:
    page = write_summary(run, tmp_path / "out", lang)
    text = page.read_text("utf-8")
    assert Phrases.load(lang)("advice.excellent").split()[-1] in text
    pictures = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(pictures) >= 4
    assert all((page.parent / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_report_writes_the_page_the_summary_and_the_plots(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept" / "lesson.html"
    assert main(["report", str(run), "-o", str(out), "--markdown", "--png"]) == 0
    assert out.read_text("utf-8").lower().startswith("<!doctype html>")
    assert (out.parent / "summary.md").exists()
    assert len(list((out.parent / "plots").glob("*.png"))) >= 4


def test_a_notebook_shows_the_last_card_and_the_verdict(run: Path) -> None:
    html = Run(run)._repr_html_()
    assert lessons.TEXT in html
    assert "<script" not in html


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no record"):
        Run(tmp_path / "nothing")


def test_looking_at_a_run_loads_no_torch(run: Path) -> None:
    code = f"import sys, apt_model; run = apt_model.Run({str(run)!r}); run.plot(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
