"""A run whose directory, record or disk is taken away in its middle: exit 5, one line, and the student is kept."""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from apt_model.errors import StorageError
from apt_model.events.runfile import EVENTS, STUDENT, RunFile, read_events
from apt_model.models.pretrained import load_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.distill.forks import fill, llama

STEPS = 10  # of a lesson


class Then:
    """A sink that does something once, after the first event of a kind and step."""

    def __init__(self, kind: str, step: int, what: Callable[[], object]) -> None:
        self.when, self.what, self.is_done = (kind, step), what, False

    def emit(self, event: Any) -> None:
        if not self.is_done and (event.kind, event.step) == self.when:
            self.is_done = True
            self.what()

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is taken away, and when."""

    what: str
    kind: str
    step: int
    save_steps: int
    is_plain: bool

    @classmethod
    def drawn(cls, dice: random.Random) -> "Loss":
        kind = dice.choice(("step", "step", "step", "epoch_started", "epoch_finished", "run_finished"))
        step = {"epoch_started": 0, "epoch_finished": STEPS, "run_finished": STEPS}.get(kind, dice.randint(1, STEPS))
        save_steps, is_plain = dice.choice((1, 3, 100)), dice.random() < 0.5
        return cls(what=dice.choice([*TAKEN]), kind=kind, step=step, save_steps=save_steps, is_plain=is_plain)


def moved(run: Path) -> Path:
    return run.rename(run.with_name("moved"))


def another(run: Path) -> None:
    """Another run in its place, with a student of its own."""
    moved(run)
    (run / STUDENT).mkdir(parents=True)
    (run / STUDENT / "config.json").write_text("theirs")
    (run / EVENTS).write_text("theirs")


def link(run: Path) -> None:
    moved(run)
    (run.parent / "elsewhere").mkdir()
    run.symlink_to(run.parent / "elsewhere")


def file(run: Path) -> None:
    moved(run)
    run.write_text("theirs")


def copied(run: Path) -> None:
    """Another file with the same bytes."""
    record = run / EVENTS
    record.rename(run / "before")
    shutil.copy(run / "before", record)


def appended(run: Path) -> None:
    with (run / EVENTS).open("a") as record:
        record.write("theirs\n")


TAKEN: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "moved": moved,
    "another": another,
    "link": link,
    "file": file,
    "parent removed": lambda run: shutil.rmtree(run.parent),
    "record removed": lambda run: (run / EVENTS).unlink(),
    "record copied": copied,
    "record cut": lambda run: os.truncate(run / EVENTS, 100),
    "record emptied": lambda run: (run / EVENTS).write_bytes(b""),
    "record appended": appended,
}


def lesson(run: Path, *, save_steps: int = 3, is_plain: bool = False, sinks: Any = (), steps: int = STEPS) -> Any:
    """Train into a run directory; the student's weights in memory, and what was raised."""
    ids = torch.randint(4, 32, (40, 6), generator=torch.Generator().manual_seed(1))
    student, config = llama(8, 2), {"seed": 0, "save_steps": save_steps, "max_steps": steps, "sample_frequency": 4}
    plain, visual = DistillationPlugin(config).distill_model, VisualDistillationPlugin(config).visual_distill_model
    how: Any = {"num_epochs": 1, "device": "cpu", "run_dir": run, "sinks": sinks}
    try:
        (plain if is_plain else visual)(student, llama(16, 2), DataLoader(ids, batch_size=4), **how)
    except StorageError as error:
        return student, error
    return student, None


def check_told(student: Any, error: StorageError | None, run: Path, what: str) -> None:
    """The error names where the very student is that was in memory, and it is nobody else's place."""
    assert error is not None
    assert error.__cause__ is not error
    assert error.exit_code == 5
    assert "\n" not in str(error)
    assert str(run / EVENTS) in str(error)
    named = re.search(r"the student of step \d+ is kept in (.*); start a new run", str(error))
    if named is None:
        assert "Last good checkpoint: step" in str(error)
        kept = Path(re.findall(r"Last good checkpoint: step \d+ \((.*)\)", str(error))[0]) / "student.safetensors"
        assert kept.is_file()
        return
    loaded = load_model(named[1])[0].state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in student.state_dict().items())
    if what == "another":
        assert (run / STUDENT / "config.json").read_text() == "theirs"


def try_one(loss: Loss, root: Path) -> None:
    run = root / "parent" / "run"
    run.parent.mkdir()
    sink = Then(loss.kind, loss.step, lambda: TAKEN[loss.what](run))
    student, error = lesson(run, save_steps=loss.save_steps, is_plain=loss.is_plain, sinks=[sink])
    assert sink.is_done
    if loss.kind == "epoch_started":  # nothing is learned yet: no student is kept, but for the steps until it is seen
        assert error is not None
    else:
        check_told(student, error, run, loss.what)


@pytest.mark.parametrize("seed", range(8))
def test_a_run_whose_directory_or_record_is_taken_away_ends_with_five_and_its_student_is_kept(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", 1)
    monkeypatch.chdir(tmp_path)
    try_one(Loss.drawn(random.Random(seed)), tmp_path)


def test_another_run_that_stands_there_when_the_lesson_is_over_keeps_its_student(tmp_path: Path) -> None:
    try_one(Loss(what="another", kind="run_finished", step=STEPS, save_steps=3, is_plain=False), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1_000, 1_200))
def test_two_hundred_runs_that_lose_directory_or_record_at_drawn_events(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", 1)
    monkeypatch.chdir(tmp_path)
    try_one(Loss.drawn(random.Random(seed)), tmp_path)


def test_a_directory_renamed_behind_a_link_of_its_old_name_is_no_loss(tmp_path: Path) -> None:
    run = tmp_path / "run"
    _, error = lesson(run, sinks=[Then("step", 2, lambda: run.symlink_to(moved(run)))])
    assert error is None
    assert [event.step for event in read_events(run) if event.kind == "step"] == list(range(1, STEPS + 1))
    assert load_model(run)[0] is not None


def test_checkpoints_that_are_removed_are_written_anew_and_are_not_named_when_they_are_gone(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def remove() -> None:
        shutil.rmtree(run / "checkpoints")
        (run / EVENTS).unlink()

    _, error = lesson(run, save_steps=2, sinks=[Then("step", 5, remove)])
    assert "Last good checkpoint" not in str(error)
    assert f"the student of step 5 is kept in {run / STUDENT}" in str(error)
    _, error = lesson(
        tmp_path / "two", sinks=[Then("step", 5, lambda: shutil.rmtree(tmp_path / "two" / "checkpoints"))]
    )
    assert error is None
    left = sorted(path.name for path in (tmp_path / "two" / "checkpoints").iterdir())
    assert left == ["step-00000009", "step-00000010"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", where], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.decode().strip()}")
    yield where
    while not subprocess.run(["umount", "-l", where], capture_output=True, check=False).returncode:
        pass


@pytest.mark.parametrize("step", [4, STEPS])
def test_a_disk_that_vanishes_in_the_middle_of_a_run(step: int, disk: Path) -> None:
    run = disk / "run"
    student, error = lesson(run, sinks=[Then("step", step, lambda: subprocess.run(["umount", "-l", disk], check=True))])
    check_told(student, error, run, "vanished")
    assert (run / STUDENT).is_dir()  # made anew, where the disk had been


def test_a_disk_on_which_nothing_more_can_be_written_leaves_the_student_here(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shrink = ["mount", "-o", "remount,size=4k", str(disk)]
    full = Then("step", 4, lambda: subprocess.run(shrink, check=False) and fill(disk / "filler"))
    _, error = lesson(disk / "run", save_steps=5, sinks=[full])
    assert error is not None
    assert "No space left on device" in str(error.got)
    assert "is kept in" in str(error) or "Last good checkpoint" in str(error)


def test_noticing_costs_some_microseconds(tmp_path: Path) -> None:
    from time import perf_counter

    record = RunFile(tmp_path / "run")
    started = perf_counter()
    for _ in range(1_000):
        record.check()
    record.close()
    assert (perf_counter() - started) / 1_000 < 200e-6
