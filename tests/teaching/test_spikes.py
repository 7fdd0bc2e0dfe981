"""A jump of the loss is remarked on; noise is not."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.config.sections import DisplayConfig
from apt_model.events.records import Notice, StepDone
from apt_model.events.sinks import Audience
from apt_model.i18n import Phrases
from apt_model.render.log import LogSink
from apt_model.render.notebook import NotebookSink
from apt_model.render.sentences import notice
from apt_model.render.terminal import TerminalSink
from apt_model.teaching.spikes import LEAST, SpikeWatch
from tests.conftest import Listener
from tests.events.test_events import EVENTS, STEP

STEPS = 2000
NOISE: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda r: 3 + 0.3 * r.standard_normal(STEPS),
    "wide": lambda r: np.abs(3 + 1.5 * r.standard_normal(STEPS)),
    "skewed": lambda r: 3 * np.exp(0.5 * r.standard_normal(STEPS)),
    "exponential": lambda r: r.exponential(2, STEPS),
    "heavy tails": lambda r: 3 + 0.3 * r.standard_t(5, STEPS),
    "wandering": lambda r: 3 + np.convolve(r.standard_normal(STEPS + 49), np.full(50, 0.1), "valid"),
    "falling": lambda r: np.exp(-np.arange(STEPS) / 300) * (5 + 0.5 * r.standard_normal(STEPS)),
    "constant": lambda r: np.full(STEPS, 2.5),
    "almost nothing": lambda r: np.abs(1e-6 * r.standard_normal(STEPS)),
}


def watch(losses: Sequence[float], watcher: SpikeWatch | None = None, first: int = 1) -> list[Notice]:
    watcher = watcher or SpikeWatch()
    events = [replace(STEP, step=step, loss=float(loss)) for step, loss in enumerate(losses, start=first)]
    return [said for said in map(watcher, events) if said is not None]


@pytest.mark.parametrize("kind", NOISE)
def test_noise_around_a_course_without_jumps_is_hardly_ever_remarked_on(kind: str) -> None:
    alarms = sum(len(watch(NOISE[kind](np.random.default_rng(seed)))) for seed in range(5))
    assert alarms <= 2  # of 10,000 steps


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 100),
    st.floats(0, 0.15),
    st.integers(LEAST, 120),
    st.floats(3, 1000),
)
def test_three_times_the_usual_loss_is_remarked_on_whatever_the_scale(
    seed: int, level: float, noise: float, calm: int, factor: float
) -> None:
    quiet = level * np.clip(1 + noise * np.random.default_rng(seed).standard_normal(calm), 0.5, 1.45)
    said = watch([*quiet, factor * level, *quiet[:5]])
    assert [(one.key, one.step) for one in said] == [("notice.spike", calm + 1)]
    assert said[0].values["usual"] == pytest.approx(np.median(quiet[-50:]), abs=1e-4)
    assert said[0].values["loss"] == pytest.approx(factor * level, abs=1e-4)


def test_a_new_level_is_told_once_and_then_at_home() -> None:
    assert [one.step for one in watch([1.0, 1.1] * 30 + [5.0, 5.1] * 200)] == [61]


def test_jump_upon_jump_is_told_at_most_once_in_fifty_steps() -> None:
    losses = [1.0, 1.1, 0.9] * 200
    losses[60::13] = [9.0] * len(losses[60::13])
    steps = [one.step for one in watch(losses)]
    assert len(steps) > 5
    assert min(later - earlier for earlier, later in pairwise(steps)) >= 50


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_no_number_is_left_to_those_who_stop_at_it(odd: float) -> None:
    assert watch([1.0, 1.1] * 20 + [odd]) == []
    assert [one.step for one in watch([1.0, odd] * 30 + [9.0])] == [61]


def test_the_first_steps_of_a_run_are_no_range_to_jump_out_of() -> None:
    assert watch([1.0] * (LEAST - 1) + [50.0]) == []
    watcher = SpikeWatch()
    watch([1.0] * 60, watcher)
    watcher(EVENTS[0])
    assert watch([50.0], watcher, first=61) == []


@given(st.lists(st.floats(0.5, 20), min_size=60, max_size=150), st.integers(0, 150))
def test_a_watch_taken_up_again_says_what_an_unbroken_one_says(losses: list[float], at: int) -> None:
    whole = watch(losses)
    first, second = SpikeWatch(), SpikeWatch()
    said = watch(losses[:at], first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    said += watch(losses[at:], second, first=at + 1)
    assert [(one.step, one.values) for one in said] == [(one.step, one.values) for one in whole]
    assert len(second.state_dict()["losses"]) <= 50


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_remark_comes_in_several_wordings_chosen_by_the_step(lang: str) -> None:
    said = Notice(run_id="r", step=1, key="notice.spike", values={"step": 7, "loss": 9.5, "usual": 1.25})
    shown = {notice(replace(said, step=step), Phrases.load(lang)) for step in range(9)}
    assert len(shown) == 3
    assert all("9.5" in line and "1.25" in line and "7" in line for line in shown)


def test_the_watch_answers_steps_only() -> None:
    watcher = SpikeWatch()
    assert [watcher(event) for event in EVENTS if not isinstance(event, StepDone)] == [None] * (
        len(EVENTS) - sum(isinstance(event, StepDone) for event in EVENTS)
    )


def test_terminal_log_and_notebook_show_the_remark_and_the_record_keeps_it(listener: Listener) -> None:
    terminal, log, pages = io.StringIO(), io.StringIO(), []
    display = DisplayConfig(lang="en")
    sinks = [
        TerminalSink(display, file=terminal),
        LogSink("en", every=1000, file=log),
        NotebookSink(display, show=lambda html: (pages.append(html), pages.append)[1]),
        listener,
    ]
    audience = Audience(sinks, watchers=[SpikeWatch()])
    for step in range(1, 41):
        audience(replace(STEP, step=step, loss=9.0 if step == 40 else 1.0 + step % 3 / 10))
    audience.close()
    assert audience.guard.failures == {}
    for shown in (terminal.getvalue().replace("\n", " "), log.getvalue(), "".join(pages)):
        assert "step 40: " in shown
        assert "9.0" in shown
    assert [type(event) for event in listener.events] == [StepDone] * 40 + [Notice]


def test_steps_on_the_students_own_texts_are_no_measure_for_the_others() -> None:
    watcher = SpikeWatch()
    written = [replace(STEP, step=step, loss=0.8, ce=None) for step in range(1, 60)]
    assert [said for said in map(watcher, written) if said] == []
    assert watch([2.0], watcher, first=60) == []
