"""The plots: what stands in them is what was measured, and any text can be drawn."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_model.errors import ConfigError, StorageError
from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.records import EpochFinished, RunStarted
from apt_model.events.results import MeanEstimate, ReadingSummary, RowReading, Validation
from apt_model.i18n import Phrases
from apt_model.review import fonts, panels, plots
from apt_model.review.run import Run
from tests.dashboard import lessons

ZH, EN = Phrases.load("zh"), Phrases.load("en")
SEEN = Validation(loss=2.0, kd=1.5, ce=3.0, agreement=0.25, tokens=9, pairs=(), mean_laziness=0.5)


def validated() -> list[Event]:
    """A lesson with validation data."""
    return [replace(e, validation=SEEN) if isinstance(e, EpochFinished) else e for e in lessons.lesson()]


def said(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_without_readings_the_map_of_topics_has_what_is_left_to_full_marks_and_how_many_cards_it_rests_on() -> None:
    (axes,) = plots.draw(list(lessons.lesson()), ZH, names=["topics"]).axes
    topics = [label.get_text() for label in axes.get_yticklabels()]
    cells = [text.get_text() for text in axes.texts]
    expected = []
    for label in topics:
        for epoch in (1, 2, 3):
            lazy = [c.laziness for c in lessons.cards() if label.startswith(c.topic) and c.epoch == epoch]
            expected.append(f"{100 - 100 * sum(lazy) / len(lazy):.0f} ({len(lazy)})")
    assert sorted(topics) == ["互联网 (6)", "医疗 (6)"]
    assert cells == expected


@pytest.mark.parametrize(
    ("scale", "lines"),
    [
        (LazinessScale(), ["0", "30", "60", "100"]),
        (LazinessScale(green_below=0.25, yellow_below=0.5), ["0", "25", "50", "100"]),
        (None, ["0", "100"]),
    ],
)
def test_laziness_has_lines_where_the_runs_own_lights_change(scale: LazinessScale | None, lines: list[str]) -> None:
    events = [replace(e, laziness_scale=scale) if isinstance(e, RunStarted) else e for e in lessons.lesson()]
    (axes,) = plots.draw(events, ZH, names=["laziness"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == lines


def test_a_mean_of_one_or_two_cards_gets_no_colour_and_mastery_is_coloured_by_fifths() -> None:
    courses = {"one": (0.1,), "two": (0.1, 0.1), "three": (0.1, 0.1, 0.1), "lazy": (0.9, 0.9, 0.9)}
    cards = [lessons.card(1, lazy, topic=topic) for topic, course in courses.items() for lazy in course]
    (axes,) = plots.draw(cards, EN, names=["topics"]).axes
    topics = [label.get_text().split(" ")[0] for label in axes.get_yticklabels()]
    grounds = {topic: patch.get_facecolor() for topic, patch in zip(topics, axes.patches, strict=True)}
    assert grounds["one"][3] == grounds["two"][3] == 0
    assert grounds["three"][:3] == pytest.approx((0x2C / 255, 0x77 / 255, 0x6A / 255))
    assert grounds["lazy"][:3] == pytest.approx((0xF0 / 255, 0xE0 / 255, 0xC4 / 255))


def test_many_epochs_and_topics_still_fit() -> None:
    cards = [replace(lessons.cards()[0], epoch=epoch, topic=f"t{epoch % 30}") for epoch in range(1, 101)]
    (axes,) = plots.draw(cards, EN, names=["topics"]).axes
    assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["1–9", "10–18"]
    assert len(axes.get_yticklabels()) == 12


def test_validation_is_drawn_with_both_of_its_scales() -> None:
    events = validated()
    assert "validation" in plots.panels(events)
    left, right = plots.draw(events, EN, names=["validation"]).axes
    assert [list(line.get_ydata()) for line in left.get_lines()] == [[2.0] * 3, [1.5] * 3, [3.0] * 3]
    assert [list(line.get_ydata()) for line in right.get_lines()] == [[25.0] * 3, [50.0] * 3]
    assert left.get_ylim()[1] > 3.1


def test_a_long_run_keeps_its_highest_and_lowest_loss() -> None:
    steps = [lessons.step_done(step, loss=1.0) for step in range(1, 20_001)]
    steps[7_777], steps[11_111] = replace(steps[7_777], loss=90.0), replace(steps[11_111], loss=0.25)
    (axes,) = plots.draw(steps, EN, names=["losses"]).axes
    assert all(len(line.get_xdata()) <= panels.BUCKETS for line in axes.get_lines())
    (band,) = axes.collections
    heights = [y for path in band.get_paths() for y in path.vertices[:, 1]]
    assert (max(heights), min(heights)) == (90.0, 0.25)


def test_numbers_that_are_not_finite_or_not_there_are_left_out() -> None:
    steps = [replace(lessons.step_done(s), loss=math.nan if s == 2 else 1.0, kd=None, ce=math.inf) for s in (1, 2, 3)]
    figure = plots.draw(steps, EN, names=["losses"])
    (line,) = figure.axes[0].get_lines()
    assert list(line.get_xdata()) == [1, 3]
    figure.canvas.draw()


@pytest.mark.parametrize("text", ["$x_^$", "\\frac{", "<b>", "📚✅", "\x1b[31m\ud800\u202e", "龘한ひ", "\U00013000"])
def test_any_text_is_drawn_as_it_is_and_never_as_math(text: str, tmp_path: Path) -> None:
    events = [replace(card, topic=text) for card in lessons.cards()]
    figure = plots.draw(events, EN, names=["topics"], title=text)
    assert plots.png(figure).startswith(b"\x89PNG")  # a warning of a glyph that is not there would be an error
    if text[0] in "$\\<":
        assert any(f"{text} (12)" == one for one in said(figure))
        assert text in said(figure)


def test_what_no_font_has_is_replaced_and_what_the_system_has_is_found() -> None:
    assert fonts.families("abc")[:2] == ["DejaVu Sans", "Apt Sans SC"]
    assert fonts.drawable("\U00013000x") == "\ufffdx"


def test_every_character_of_gb2312_and_of_our_sentences_is_in_the_bundled_fonts() -> None:
    pairs = (bytes([row, cell]) for row in range(0xA1, 0xFF) for cell in range(0xA1, 0xFF))
    table = "".join(pair.decode("gb2312", "ignore") for pair in pairs)
    assert len(table) == 7445
    assert fonts.families(table) == ["DejaVu Sans", "Apt Sans SC"]
    for say in (ZH, EN):
        for name in plots.panels(validated()):
            assert fonts.drawable(say(f"plots.{name}")) == say(f"plots.{name}")


def test_plots_without_matplotlib_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'apt-model\[report\]'"):
        plots.draw(lessons.cards(), EN)


def test_frames_without_pandas_name_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = Run(lessons.write(tmp_path / "run", lessons.lesson()))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        run.to_pandas()


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        plots.save(lessons.cards(), tmp_path / "file", EN)


def of_rows(step: int, epoch: int, *, unseen: bool, shares: tuple[float, float]) -> Reading:
    """A reading of two rows of 10 and 30 tokens, on two topics."""
    rows = tuple(
        RowReading(tokens=tokens, kl=0.5, normalised_kl=0.4, agreement=share, ce=2.0, teacher_ce=None, echo=0.0)
        for tokens, share in zip((10, 30), shares, strict=True)
    )
    names = {"topics": ("医疗", "经济"), "texts": ("一", "二")} if step == 0 else {}
    mean = MeanEstimate(value=(10 * shares[0] + 30 * shares[1]) / 40, error=0.02)
    seen = ReadingSummary(rows=2, tokens=40, agreement=mean, kl=mean, ce=mean, laziness=mean, teacher_ce=None)
    return Reading(run_id="r", step=step, epoch=epoch, unseen=unseen, rows=rows, measured=seen, **names)


def test_readings_are_drawn_within_their_intervals_and_topics_come_from_unseen_rows() -> None:
    read = [
        of_rows(0, 0, unseen=True, shares=(0.1, 0.2)),
        of_rows(0, 0, unseen=False, shares=(0.3, 0.3)),
        of_rows(20, 1, unseen=True, shares=(0.4, 0.2)),
        of_rows(60, 1, unseen=True, shares=(0.5, 0.7)),
    ]
    events = [*lessons.lesson(), *read]
    (axes,) = plots.draw(events, ZH, names=["readings"]).axes
    agreement = axes.get_lines()[0]
    assert (agreement.get_label(), list(agreement.get_ydata())) == ("没学过的：与教师一致", [17.5, 25.0, 65.0])
    heights = [y for path in axes.collections[0].get_paths() for y in path.vertices[:, 1]]
    assert (min(heights), max(heights)) == (pytest.approx(17.5 - 3.92), pytest.approx(65 + 3.92))
    (axes,) = plots.draw(events, ZH, names=["topics"]).axes
    assert axes.get_title() == ZH("plots.mastery")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["医疗 (1)", "经济 (1)"]
    assert [text.get_text() for text in axes.texts] == ["10", "50", "20", "70"]  # of epoch 1 the last reading
    assert "readings" not in plots.panels(list(lessons.lesson()))
