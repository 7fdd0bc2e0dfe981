"""Readings of fixed rows: paired differences with their errors; grade, trend and advice that follow from them."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import Reading
from apt_model.events.records import EpochFinished, RunFinished, RunStarted
from apt_model.events.results import RowReading
from apt_model.teaching.advice import direction
from apt_model.teaching.course import MOST_READINGS, Course, mean_estimate
from apt_model.teaching.scorer import LessonScorer
from tests.events.test_events import EVENTS, STEP
from tests.teaching.test_teaching import SEEN

STARTED = next(event for event in EVENTS if isinstance(event, RunStarted))
FINISHED = next(event for event in EVENTS if isinstance(event, RunFinished))
VOCABULARY = 1000


def row(lazy: float, *, kl: float | None = None, ce: float = 3.0, teacher_ce: float | None = 2.0) -> RowReading:
    """A row of ten tokens whose laziness is `lazy`."""
    agreement = 1 - lazy
    return RowReading(
        tokens=10,
        kl=3 * lazy if kl is None else kl,
        normalised_kl=lazy,
        agreement=agreement,
        ce=ce,
        teacher_ce=teacher_ce,
        echo=0.0,
    )


def reading(step: int, lazy: Sequence[float], *, unseen: bool = True, **more: Any) -> Reading:
    rows = tuple(row(min(max(one, 0.0), 1.0), **more) for one in lazy)
    return Reading(run_id="r", step=step, epoch=1, unseen=unseen, rows=rows)


def spread(mean: float, rows: int = 16) -> list[float]:
    """Rows of a mean laziness that differ from each other by far more than a student changes."""
    dice = random.Random(0)
    return [mean * (0.5 + dice.random()) for _ in range(rows)]


def verdict(unseen: Sequence[float], learned: Sequence[float] = (), rate: float = 1e-3, **settings: Any) -> RunFinished:
    """The verdict of a run of 100 steps whose mean laziness on unseen and learned rows was read at equal distances."""
    scorer = LessonScorer(DisplayConfig(), {})
    config = {"temperature": 1.0, "alpha": 1.0, "beta": 0.0, "max_steps": 100, **settings}
    scorer(replace(STARTED, config=config, vocabulary=VOCABULARY))
    scorer(replace(STEP, learning_rate=rate))
    for kind, means in ((True, unseen), (False, learned)):
        for at, mean in enumerate(means):
            scorer(reading(round(100 * at / (len(means) - 1)), spread(mean), unseen=kind))
    found = scorer(replace(FINISHED, step=100))
    assert isinstance(found, RunFinished)
    return found


def keys(found: RunFinished) -> list[str]:
    return [one.key for one in found.advice]


def test_the_mean_and_its_error_are_a_ratio_estimators_as_written_out_by_hand() -> None:
    found = mean_estimate([0.5, 0.25, 1.0], [10, 20, 30])
    assert found.value == pytest.approx(40 / 60)
    apart = (10 * (0.5 - 2 / 3)) ** 2 + (20 * (0.25 - 2 / 3)) ** 2 + (30 * (1 - 2 / 3)) ** 2
    students_t = 4.303  # its 97.5 % quantile for 2 degrees of freedom
    assert found.error == pytest.approx(math.sqrt(3 / 2 * apart) / 60 * students_t / 1.96)
    assert mean_estimate([0.5], [10]).error is None


@pytest.mark.parametrize("rows", [4, 8, 16, 32])
def test_the_intervals_of_the_mean_hold_the_truth_as_often_as_they_say(rows: int) -> None:
    dice, hits = random.Random(1), 0
    for _ in range(2000):
        values = [dice.betavariate(2, 3) for _ in range(rows)]
        found = mean_estimate(values, [dice.randint(15, 30) for _ in range(rows)])
        assert found.error is not None
        hits += abs(found.value - 0.4) < 1.96 * found.error
    assert 0.93 < hits / 2000 < 0.97


def test_rows_are_paired_so_that_their_own_difficulty_is_no_noise() -> None:
    course, hard = Course(), spread(0.5)
    course.add(reading(0, hard))
    course.add(reading(50, [one - 0.02 for one in hard]))
    change = course.change()
    assert change is not None
    assert change.laziness.value == pytest.approx(-0.02)
    assert change.laziness.error == pytest.approx(0.0, abs=1e-9)
    assert direction(change.laziness) == "progress"


def test_a_student_that_cannot_change_is_said_not_to_change() -> None:
    found = verdict([0.9] * 6, rate=1e-9)
    assert (found.trend, found.grade) == ("steady", "needs_work")
    assert [(one.key, one.setting, one.value) for one in found.advice] == [("rate_up", "learning_rate", "0.0001")]


@pytest.mark.parametrize("shuffle", range(20))
def test_chance_alone_is_no_trend(shuffle: int) -> None:
    dice, course = random.Random(shuffle), Course()
    for step in (0, 50, 100):
        course.add(reading(step, [dice.gauss(0.5, 0.1) for _ in range(16)]))
    change = course.change()
    assert change is not None
    assert direction(change.laziness) == "steady"


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"unseen": [0.9, 0.6, 0.4, 0.3, 0.2, 0.1]}, ("great_progress", "excellent", ["excellent"])),
        ({"unseen": [0.9, 0.8, 0.7, 0.6, 0.55, 0.5]}, ("great_progress", "fair", ["train_longer"])),
        ({"unseen": [0.9, 0.7, 0.5, 0.5, 0.5, 0.5]}, ("great_progress", "fair", ["too_small"])),
        ({"unseen": [0.9, 0.7, 0.25, 0.25, 0.25, 0.25]}, ("great_progress", "good", ["good_enough"])),
        ({"unseen": [0.5, 0.5, 0.6, 0.7, 0.7, 0.7]}, ("decline", "needs_work", ["rate_down"])),
        ({"unseen": [0.95, 0.9, 0.85, 0.85, 0.85], "rate": 0.1}, ("progress", "needs_work", ["rate_down"])),
        ({"unseen": [0.9, 0.8, 0.7, 0.6, 0.5], "rate": 0.1}, ("great_progress", "fair", ["train_longer"])),
        ({"unseen": [0.9, 0.9, 0.9], "learned": [0.9, 0.9], "rate": 1e-6}, ("steady", "needs_work", ["rate_up"])),
        (
            {"unseen": [0.9, 0.6, 0.5, 0.6, 0.7], "learned": [0.9, 0.1], "alpha": 0.5},
            ("great_progress", "needs_work", ["overfits_since", "teacher_alone"]),
        ),
        ({"unseen": [0.9, 0.7, 0.6, 0.5], "learned": [0.9, 0.1]}, ("great_progress", "fair", ["from_memory"])),
        ({"unseen": [], "learned": [0.9, 0.1]}, ("great_progress", "excellent", ["excellent"])),
    ],
    ids=str,
)
def test_the_verdict_follows_from_the_readings(run: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = verdict(**run)
    assert (found.trend, found.grade, keys(found)) == expected


def test_overfitting_names_the_step_at_which_to_stop() -> None:
    found = verdict([0.9, 0.6, 0.5, 0.6, 0.7], [0.9, 0.1])
    assert [(one.setting, one.value) for one in found.advice] == [("max_steps", "50")]


def test_labels_learned_by_heart_are_told_from_text_that_was_harder_from_the_start() -> None:
    def advised(begins: float, ends: float) -> list[str]:
        scorer = LessonScorer(DisplayConfig(), {})
        scorer(replace(STARTED, vocabulary=VOCABULARY, config={"alpha": 0.1, "max_steps": 100}))
        for step, mean, unseen, learned in ((0, 0.9, begins, 5.0), (50, 0.7, 4.5, 3.0), (100, 0.6, ends, 2.0)):
            scorer(reading(step, spread(mean), ce=unseen))
            scorer(reading(step, spread(mean), ce=learned, unseen=False))
        found = scorer(replace(FINISHED, step=100))
        assert isinstance(found, RunFinished)
        return keys(found)

    assert advised(5.0, 4.0) == ["labels_by_heart", "teacher_alone"]
    assert advised(7.0, 4.0) == ["train_longer"]


def test_text_that_was_harder_from_the_start_is_not_called_memorised() -> None:
    assert keys(verdict([0.65, 0.5, 0.4, 0.3], [0.5, 0.15])) == ["train_longer"]
    assert keys(verdict([0.65, 0.6, 0.55, 0.5], [0.5, 0.1])) == ["from_memory"]


def test_a_rise_on_unseen_text_alone_is_no_overfitting() -> None:
    assert "overfits_since" not in keys(verdict([0.9, 0.4, 0.5], [0.9, 0.5]))
    assert "overfits_since" in keys(verdict([0.9, 0.4, 0.5], [0.9, 0.2]))


def test_without_a_reading_between_start_and_end_nothing_is_said_of_the_second_half() -> None:
    assert keys(verdict([0.9, 0.5])) == ["longer_to_tell"]


def test_a_label_that_the_teacher_rules_out_costs_its_row_the_teachers_number_alone() -> None:
    course = Course()
    rows = (row(0.5), row(0.5, teacher_ce=math.inf), row(0.5))
    course.add(Reading(run_id="r", step=0, epoch=0, unseen=True, rows=rows))
    assert course.summary is not None
    assert course.summary.teacher_ce is not None
    assert (course.summary.rows, course.summary.teacher_ce.value) == (3, 2.0)


def test_a_first_reading_of_other_rows_begins_the_course_anew() -> None:
    course = Course()
    course.add(reading(0, [0.9, 0.9]))
    course.add(replace(reading(50, [0.5, 0.5]), texts=("other", "rows")))
    course.add(reading(100, [0.4, 0.4]))
    change = course.change()
    assert change is not None
    assert (change.since, change.laziness.value) == (50, pytest.approx(-0.1))


def card_of(**measured: Any) -> list[str]:
    """The advice of a run that is half done, with what a card measured."""
    scorer = LessonScorer(DisplayConfig(), {})
    config = {"temperature": 4.0, "alpha": 0.7, "max_steps": 100}
    scorer(replace(STARTED, config=config, vocabulary=VOCABULARY))
    scorer(replace(SEEN, **measured))
    for step, mean in ((0, 0.9), (50, 0.8), (100, 0.7)):
        scorer(reading(step, spread(mean)))
    found = scorer(replace(FINISHED, step=100))
    assert isinstance(found, RunFinished)
    return keys(found)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"softness": 0.86}, ["temperature_blunts", "train_longer"]),
        ({"softness": 0.84}, ["train_longer"]),
        ({"softness": 0.5, "kd_pull": 0.24, "ce_pull": 0.76}, ["teacher_unheard", "train_longer"]),
        ({"softness": 0.5, "kd_pull": 0.26, "ce_pull": 0.74}, ["train_longer"]),
        ({"softness": 0.86, "kd_pull": 0.1, "ce_pull": 0.9}, ["temperature_blunts", "train_longer"]),
    ],
    ids=str,
)
def test_what_the_step_measured_of_the_teachers_signal_becomes_advice(measured: Any, expected: list[str]) -> None:
    assert card_of(**measured) == expected


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((0.9, 0.7, 0.692, 0.692), "too_small"),  # less than a point in the second half
        ((0.9, 0.7, 0.7, 0.65), "train_longer"),  # 5
        ((0.9, 0.892, 0.892, 0.892), "longer_to_tell"),  # less than a point in all: no change
        ((0.9, 0.885, 0.885, 0.885), "too_small"),  # more
    ],
)
def test_the_thresholds_of_progress_and_of_standing_still(means: tuple[float, ...], expected: str) -> None:
    scorer = LessonScorer(DisplayConfig(), {})
    scorer(replace(STARTED, config={"alpha": 1.0, "max_steps": 90}, vocabulary=VOCABULARY))
    scorer(replace(STEP, learning_rate=1e-3))
    for step, mean in zip((0, 45, 60, 90), means, strict=True):
        scorer(reading(step, [mean] * 16))
    found = scorer(replace(FINISHED, step=90))
    assert isinstance(found, RunFinished)
    assert keys(found) == [expected]


def test_a_teacher_that_guesses_is_named_and_nothing_else_is_advised() -> None:
    scorer = LessonScorer(DisplayConfig(), {})
    scorer(replace(STARTED, vocabulary=VOCABULARY, config={"temperature": 4.0, "alpha": 0.7, "beta": 0.3}))
    for step in (0, 100):
        scorer(reading(step, spread(0.9), teacher_ce=math.log(VOCABULARY) + 0.1))
    found = scorer(replace(FINISHED, step=100))
    assert isinstance(found, RunFinished)
    assert keys(found) == ["teacher_lost"]


@pytest.mark.parametrize("similarity", [0.0, 1.0])
def test_the_final_grade_follows_from_the_rows_whatever_cards_were_shown(similarity: float) -> None:
    scorer = LessonScorer(DisplayConfig(), {}, similarity=lambda teacher, student: similarity)
    scorer(replace(STARTED, config={"alpha": 0.7}, vocabulary=VOCABULARY))
    scorer(SEEN)
    for step in (0, 100):
        scorer(reading(step, spread(0.1)))
    found = scorer(replace(FINISHED, step=100))
    assert isinstance(found, RunFinished)
    assert found.grade == "good"  # 10 % lazy, but .7 · .3 + .3 · 1 nats behind the teacher


def test_an_observed_student_is_not_advised_on_a_teacher_that_it_does_not_learn_from() -> None:
    scorer = LessonScorer(DisplayConfig(), {})
    scorer(replace(STARTED, learns_from_teacher=False, trained_by="SFTConfig", config={}))
    for step, ce in ((0, 5.0), (50, 3.0), (100, 4.0)):
        scorer(reading(step, spread(0.9), ce=ce))
        scorer(reading(step, spread(0.9), ce=5.0 - step / 25, unseen=False))
    found = scorer(replace(FINISHED, step=100))
    assert isinstance(found, RunFinished)
    assert keys(found) == ["observed", "overfits_since"]


def test_mastery_of_a_topic_is_read_on_its_fixed_rows_and_not_on_the_cards() -> None:
    scorer = LessonScorer(DisplayConfig(), {"甲": ["苹果"], "乙": ["梨子"]})
    scorer(replace(SEEN, input_text="苹果"))
    first = replace(reading(0, [0.2, 0.4, 0.2, 0.4, 0.9, 0.9]), texts=("苹果",) * 4 + ("梨子",) * 2)
    scored = scorer(first)
    assert isinstance(scored, Reading)
    assert scored.topics == ("甲", "甲", "甲", "甲", "乙", "乙")
    ended = next(event for event in EVENTS if isinstance(event, EpochFinished))
    epoch = scorer(replace(ended, step=0))
    assert isinstance(epoch, EpochFinished)
    (score,) = epoch.topics
    assert (score.topic, score.samples, score.rows) == ("甲", 1, 4)
    assert score.mastery is not None
    assert score.mastery.value == pytest.approx(0.7)


def test_the_weakest_topic_is_named_only_if_it_is_certainly_behind() -> None:
    def advised(weak: float) -> list[str]:
        scorer = LessonScorer(DisplayConfig(), {"甲": ["苹果"], "乙": ["梨子"]})
        for text in ("苹果", "梨子"):
            scorer(replace(SEEN, input_text=text, student_text=SEEN.teacher_text, normalised_kl=0.0))
        lazy = [0.2 + at / 100 for at in range(10)] + [weak + at / 100 for at in range(6)]
        for step, factor in ((0, 1.2), (100, 1.0)):
            rows = reading(step, [factor * one for one in lazy])
            scorer(replace(rows, texts=() if step else ("苹果",) * 10 + ("梨子",) * 6))
        found = scorer(replace(FINISHED, step=100))
        assert isinstance(found, RunFinished)
        return [one.key for one in found.advice]

    assert "laziest_topic" in advised(0.7)
    assert "laziest_topic" not in advised(0.22)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 8))
def test_advice_is_two_pieces_at_most_and_never_pulls_both_ways(means: list[float], rows: int) -> None:
    scorer = LessonScorer(DisplayConfig(), {})
    scorer(replace(STARTED, vocabulary=VOCABULARY))
    for step, mean in enumerate(means):
        scorer(reading(step, spread(mean, rows)))
    found = scorer(replace(FINISHED, step=len(means)))
    assert isinstance(found, RunFinished)
    said = set(keys(found))
    assert 1 <= len(found.advice) <= 2
    for apart in ({"rate_up", "rate_down"}, {"train_longer", "overfits_since"}, {"excellent", "too_small"}):
        assert not apart <= said


def test_a_reading_that_is_not_finite_is_left_out() -> None:
    course = Course()
    course.add(reading(0, [0.5, 0.5]))
    course.add(reading(1, [0.4, 0.4], kl=math.nan))
    assert course.count == 1


def test_the_course_of_a_long_run_stays_bounded_and_keeps_its_ends_and_its_state() -> None:
    course = Course()
    for step in range(1000):
        course.add(reading(step, [1 - step / 1000] * 2))
    assert course.count <= MOST_READINGS
    change = course.change()
    assert change is not None
    assert (change.since, change.laziness.value) == (0, pytest.approx(-0.999))
    again = Course()
    again.load_state_dict(course.state_dict())
    assert (again.change(), again.summary, again.middle()) == (change, course.summary, course.middle())


def test_a_reading_before_the_last_step_says_nothing_of_the_student_at_the_end() -> None:
    scorer = LessonScorer(DisplayConfig(), {})
    for step in (0, 50):
        scorer(reading(step, spread(0.9 - step / 100)))
    found = scorer(replace(FINISHED, step=100))
    assert isinstance(found, RunFinished)
    assert (found.unseen, found.change, found.trend, found.grade) == (None, None, "unknown", None)
    assert keys(found) == ["not_measured"]
