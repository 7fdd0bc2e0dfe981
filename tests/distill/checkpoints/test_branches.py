"""A branch goes on from the checkpoint of another run: unchanged it repeats that to the byte, and touches nothing."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from apt_model.distill.checkpoints import branching
from apt_model.errors import ConfigError, Interrupted, StorageError
from apt_model.events.records import Branch, ChangedSetting
from apt_model.events.runfile import read_events
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.distill.forks import Killer, forked, llama, weights

STEPS = 8


def lesson(run: Path, *, sinks: Any = (), given: Any = None, student: Any = None, **more: Any) -> Any:
    """Eight steps in two epochs with dropout, shuffled rows and accumulation; a checkpoint every second step."""
    ids = torch.randint(4, 32, (32, 6), generator=torch.Generator().manual_seed(1))
    how = {"seed": 0, "learning_rate": 0.01, "save_steps": 2, "save_total_limit": 9, "sample_frequency": 2}
    how |= {"gradient_accumulation_steps": 2, "num_epochs_": 2} | more
    epochs, student = how.pop("num_epochs_"), student or llama(8, 2, dropout=0.1)
    VisualDistillationPlugin({**how, "lang": "en"}).visual_distill_model(
        student,
        llama(16, 2),
        DataLoader(ids, batch_size=4, shuffle=True),
        num_epochs=epochs,
        device="cpu",
        run_dir=run,
        sinks=sinks,
        **given or {},
    )
    return student


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash and the time of its last change."""
    return {
        str(path.relative_to(folder)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in folder.rglob("*")
        if path.is_file()
    }


def told(run: Path) -> list[tuple[str, int, Any]]:
    """What a record tells of the training, but for ids and times."""
    return [
        (event.kind, event.step, getattr(event, "loss", None), getattr(event, "kd", None))  # type: ignore[misc]
        for event in read_events(run)
        if event.kind not in ("run_started", "notice")
    ]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("school") / "lesson"
    lesson(run)
    return run


def branch(run: Path, parent: Path, at: int | None, **more: Any) -> Any:
    return lesson(run, given={"branch_from": parent, "branch_at": at}, **more)


@pytest.mark.parametrize("at", [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)])
def test_an_unchanged_branch_leaves_the_bytes_of_the_run_it_left_and_touches_nothing_of_it(
    at: int, parent: Path, tmp_path: Path
) -> None:
    before = content(parent)
    branch(tmp_path / "branch", parent, at)
    assert weights(tmp_path / "branch") == weights(parent)
    assert told(tmp_path / "branch") == told(parent)
    assert content(parent) == before


def test_a_branch_says_who_its_parent_is_and_has_the_parents_events_as_its_own(parent: Path, tmp_path: Path) -> None:
    branch(tmp_path / "branch", parent, 4, temperature=1.0)
    events, parents = list(read_events(tmp_path / "branch")), list(read_events(parent))
    changed = (ChangedSetting(setting="temperature", before=4.0, after=1.0),)
    assert events[0].branch == Branch(run="lesson", run_id=parents[0].run_id, step=4, changed=changed)  # type: ignore[attr-defined]
    assert {event.run_id for event in events} == {events[0].run_id} != {parents[0].run_id}
    assert sum(event.kind == "run_started" for event in events) == 1
    assert told(tmp_path / "branch")[: told(parent).index(next(one for one in told(parent) if one[1] > 4))] == [
        one for one in told(parent) if one[1] <= 4
    ]
    assert weights(tmp_path / "branch") != weights(parent)
    notices = {event.key: event.values for event in events if event.kind == "notice"}  # type: ignore[attr-defined]
    assert notices["notice.branched"] == {"run": "lesson", "step": 4, "changed": "temperature 4.0 → 1.0"}


@pytest.mark.slow
def test_several_branches_leave_one_checkpoint_and_a_branch_can_be_branched(parent: Path, tmp_path: Path) -> None:
    branch(tmp_path / "one", parent, 4, alpha=1.0, beta=0.0)
    branch(tmp_path / "two", parent, 4, temperature=2.0)
    branch(tmp_path / "three", tmp_path / "two", 6, temperature=2.0)  # unchanged, from the middle of the branch
    branch(tmp_path / "back", tmp_path / "two", 4)  # back to what the first run had
    assert len({weights(tmp_path / name) for name in ("one", "two", "back")}) == 3
    assert weights(tmp_path / "three") == weights(tmp_path / "two")
    assert weights(tmp_path / "back") == weights(parent)
    assert next(read_events(tmp_path / "three")).branch.run == "two"  # type: ignore[attr-defined]


def test_a_branch_without_a_step_goes_on_from_the_newest_with_more_epochs(parent: Path, tmp_path: Path) -> None:
    branch(tmp_path / "branch", parent, None, num_epochs_=3)
    steps = [event for event in read_events(tmp_path / "branch") if event.kind == "step"]
    assert [event.step for event in steps] == list(range(1, 13))
    notice = next(
        event for event in read_events(tmp_path / "branch") if getattr(event, "key", "") == "notice.branch_rate"
    )
    assert notice.values["before"] == "0"  # type: ignore[attr-defined]  # the parent's cosine had come to its end
    assert notice.values["after"] == f"{steps[8].learning_rate:.3g}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", [7, pytest.param(5, marks=pytest.mark.slow)])
def test_a_killed_branch_resumes_to_the_bytes_it_would_have_had(at: int, parent: Path, tmp_path: Path) -> None:
    branch(tmp_path / "whole", parent, 4, temperature=1.0)
    run = tmp_path / "killed"
    killed = forked(lambda: branch(run, parent, 4, temperature=1.0, sinks=[Killer(at)]))
    assert killed == -signal.SIGKILL
    lesson(run, temperature=1.0, given={"resume_from": run})
    assert weights(run) == weights(tmp_path / "whole")
    assert told(run) == told(tmp_path / "whole")
    assert next(read_events(run)).branch.run == "lesson"  # type: ignore[attr-defined]


def test_a_branch_killed_before_it_had_a_checkpoint_is_not_begun_at_the_first_step(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "branch"

    def torn(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def begin() -> None:
        monkeypatch.setattr(branching, "write_snapshot", torn)
        branch(run, parent, 4)

    assert forked(begin) == -signal.SIGKILL
    with pytest.raises(StorageError, match=re.escape(f"Fix: remove {run}, and branch again")):
        lesson(run, given={"resume_from": run})


def test_a_stopped_branch_of_a_student_still_in_memory_resumes(parent: Path, tmp_path: Path) -> None:
    student = llama(8, 2, dropout=0.1)
    with contextlib.suppress(Interrupted):
        branch(tmp_path / "branch", parent, 4, student=student, sinks=[Killer(5, signal.SIGTERM)])
    lesson(tmp_path / "branch", student=student, given={"resume_from": tmp_path / "branch"})
    assert weights(tmp_path / "branch") == weights(parent)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": 1}, "seed: 0 then, 1 now (random numbers go on"),
        ({"max_length": 5}, "max_length: 512 then, 5 now"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps: 2 then, 1 now"),
        ({"hidden_weight": 1.0}, "hidden_weight: 0.0 then, 1.0 now (the projections"),
        ({"mixed_precision": "bf16", "seed": 3}, "seed: 0 then, 3 now"),
        ({"student": llama(8, 1)}, "the student's build"),
    ],
)
def test_what_cannot_change_in_mid_run_is_refused_by_name(
    more: dict[str, Any], said: str, parent: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        branch(tmp_path / "branch", parent, 4, **more)


def test_a_step_without_a_checkpoint_is_refused_with_those_that_are_kept(parent: Path, tmp_path: Path) -> None:
    kept = r"no checkpoint at step 3; kept: 2, 4, 6, 8\. Fix: branch at step 2, the nearest\."
    with pytest.raises(ConfigError, match=kept):
        branch(tmp_path / "branch", parent, 3)
    with pytest.raises(ConfigError, match="nothing is left to train after step 8"):
        branch(tmp_path / "over", parent, 8)
    with pytest.raises(ConfigError, match="a branch needs a run directory of its own"):
        branch(parent, parent, 4)
    with pytest.raises(StorageError, match="holds no run to branch from"):
        branch(tmp_path / "none", tmp_path / "nowhere", 4)
    assert not (tmp_path / "none").exists()


def test_a_parent_whose_record_or_checkpoint_is_damaged_is_a_storage_error(parent: Path, tmp_path: Path) -> None:
    shutil.copytree(parent, tmp_path / "cut")
    record = tmp_path / "cut" / "events.jsonl"
    record.write_bytes(record.read_bytes()[:300])
    with pytest.raises(StorageError, match="cannot be restored"):
        branch(tmp_path / "of_cut", tmp_path / "cut", 4)
    shutil.copytree(parent, tmp_path / "worn")
    student = tmp_path / "worn" / "checkpoints" / "step-00000004" / "student.safetensors"
    student.write_bytes(b"\0" + student.read_bytes()[1:])
    with pytest.raises(StorageError, match=r"student\.safetensors has changed"):
        branch(tmp_path / "of_worn", tmp_path / "worn", 4)
