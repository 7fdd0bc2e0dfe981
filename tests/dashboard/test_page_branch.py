"""A branch on the page: whose it is, both futures at first sight, and the command that begins another."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_model.events.event import Event
from apt_model.events.records import Branch, ChangedSetting, RunStarted
from tests.dashboard import lessons
from tests.dashboard.conftest import Open, Serve

AT = 20
CHANGED = (ChangedSetting(setting="temperature", before=2.0, after=1.0),)


def family(folder: Path) -> Path:
    """A lesson and its branch, each with the names of checkpoints."""
    write(folder / "lesson", "parent", None, kept=(20, 40, 60))
    write(folder / "what if", "child", Branch(run="lesson", run_id="parent", step=AT, changed=CHANGED), kept=(20, 60))
    return folder


def write(run: Path, run_id: str, branch: Branch | None, *, kept: tuple[int, ...]) -> None:
    lessons.write(run, list(events(run_id, branch)))
    for step in kept:
        (run / "checkpoints" / f"step-{step:08}").mkdir(parents=True)


def events(run_id: str, branch: Branch | None) -> Iterator[Event]:
    for event in lessons.lesson():
        known = {"branch": branch} if isinstance(event, RunStarted) else {}
        yield replace(event, run_id=run_id, **known)


def says(page: Any, command: str) -> None:
    """Wait until this is the command to copy."""
    page.wait_for_function("said => document.querySelector('.branch-command code')?.textContent === said", arg=command)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family(tmp_path_factory.mktemp("family"))


def test_a_branch_is_shown_beside_its_parent_and_says_what_it_changed(
    open_page: Open, serve: Serve, runs: Path
) -> None:
    watched = open_page(serve(runs).url, locale="en")
    page = watched.page
    page.locator(".which select").first.select_option(label="what if")
    page.locator(".branch").wait_for()
    assert "从「lesson」的第 20 步分出：温度 2 → 1。" in page.locator(".branch").inner_text()
    page.wait_for_function("() => document.querySelectorAll('#view-now .card').length === 2")  # and its parent's
    page.locator(".switch.language").click()
    assert "Branched from “lesson” at step 20: temperature 2 → 1." in page.locator(".branch").inner_text()


def test_the_command_branches_at_the_kept_step_nearest_to_the_one_in_view(
    open_page: Open, serve: Serve, runs: Path
) -> None:
    watched = open_page(serve(runs).url)
    page = watched.page
    page.locator(".which select").first.select_option(label="what if")
    page.locator(".branching summary").focus()
    page.keyboard.press("Enter")
    says(page, "apt-model branch 'what if' --at 20 --temperature 1")
    page.locator(".which select").first.select_option(label="lesson")
    watched.go_to(33)
    says(page, "apt-model branch lesson --at 40 --temperature 1")
    assert "离第 33 步最近" in page.locator(".branch-text").inner_text()
    watched.go_to(60)  # at its end nothing is left to learn
    says(page, "apt-model branch lesson --at 40 --temperature 1")
    page.locator(".branch-fields select").select_option("num_epochs")
    watched.settle()
    page.locator(".branch-fields input").fill("7")
    watched.settle()
    says(page, "apt-model branch lesson --at 60 --num-epochs 7")
    page.locator(".branch-fields input").fill("$(rm x)")
    watched.settle()
    says(page, "apt-model branch lesson --at 60 --num-epochs …")
    assert page.locator(".branch-command button").is_disabled()


def test_a_lesson_without_checkpoints_says_how_it_would_keep_some(open_page: Open, serve: Serve, shelf: Path) -> None:
    page = open_page(serve(shelf / "whole").url).page
    page.locator(".branching summary").click()
    assert "--save-total-limit" in page.locator(".branching").inner_text()
    assert page.locator(".branch").count() == 0
