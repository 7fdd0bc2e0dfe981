"""A run that was broken off goes on exactly where it was: weights, cards, record."""

import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset

from apt_model import faults
from apt_model.config import settings
from apt_model.distill.checkpoints.comparison import differences
from apt_model.errors import ConfigError, Interrupted, NumericError, StorageError
from apt_model.events.runfile import EVENTS, read_events
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from apt_model.storage import newest_snapshot, snapshots, why_damaged

STEPS = 9  # three epochs of five batches, two to a step
TIMES = ("wall_time", "step_seconds", "seconds")


class Broken(BaseException):
    """What breaks a run off in these tests."""


class Noisy(Dataset[Any]):
    """Rows that a random transform changes each time they are read, by all three generators."""

    def __init__(self, batches: list[dict[str, torch.Tensor]]) -> None:
        self._ids = torch.cat([batch["input_ids"] for batch in batches]).clamp(min=4)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        import numpy as np

        noise = random.randrange(3) + int(np.random.randint(3)) + int(torch.randint(3, ()))
        return (self._ids[index] + noise).clamp(max=63)


class Breaker:
    """A sink that breaks the run off after some steps, as a kill would: without a checkpoint of its own."""

    def __init__(self, step: int) -> None:
        self._step = step

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step == self._step:
            os.kill(os.getpid(), signal.SIGUSR1)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def unharmed() -> Any:
    def break_off(number: int, frame: object) -> None:
        raise Broken

    before = signal.signal(signal.SIGUSR1, break_off)
    yield
    signal.signal(signal.SIGUSR1, before)
    faults.disarm()


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Any]:
    """The run that was never broken off, once it has been made: the student's bytes, and the directory."""
    return {}


@pytest.fixture
def whole(lesson: Any, uninterrupted: dict[str, Any], tmp_path: Path) -> tuple[dict[str, torch.Tensor], Path]:
    if not uninterrupted:
        uninterrupted.update(student=lesson("whole"), directory=tmp_path / "whole")
    return uninterrupted["student"], uninterrupted["directory"]


@pytest.fixture
def lesson(make_model: Callable[..., Any], teacher: Any, tokenizer: Any, make_batches: Any, tmp_path: Path) -> Any:
    """Runs or resumes a lesson in a directory; returns the student's bytes."""

    def run(
        name: str, *, workers: int = 0, resume: bool = False, broken_at: int = 0, start: str | None = None, **more: Any
    ) -> dict[str, torch.Tensor]:
        config = {"seed": 0, "learning_rate": 0.01, "gradient_accumulation_steps": 2, "sample_frequency": 2}
        config |= {"save_steps": 1, "save_total_limit": 99, "exam_frequency": 2, "exam_tokens": 4} | more.pop(
            "config", {}
        )
        student = make_model(hidden=16, layers=1, seed=2, attention_dropout=0.1)
        rows = Noisy(make_batches(count=5, rows=4))
        data = more.pop("data", None) or DataLoader(rows, batch_size=4, shuffle=True, num_workers=workers)
        VisualDistillationPlugin(config).visual_distill_model(
            student,
            more.pop("teacher", teacher),
            data,
            tokenizer=tokenizer,
            num_epochs=more.pop("num_epochs", 3),
            device="cpu",
            run_dir=tmp_path / name,
            resume_from=(tmp_path / (start or name)) if resume else None,
            sinks=more.pop("sinks", [Breaker(broken_at)] if broken_at else []),
            **more,
        )
        return {key: value.clone() for key, value in student.state_dict().items()}

    return run


def record(run: Path) -> list[dict[str, Any]]:
    """All that was recorded, without what a clock says."""
    lines = [json.loads(line) for line in (run / EVENTS).read_bytes().splitlines()]
    lines = [line for line in lines if line.get("key") != "notice.record_kept"]  # told where a run begins anew
    return [{key: value for key, value in line.items() if key not in (*TIMES, "run_id", "config")} for line in lines]


def assert_same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_whose_cards_continue_goes_on_with_the_same_student_and_the_same_cards(
    lesson: Any, whole: Any, tmp_path: Path
) -> None:
    speaks = {"card_text": "continued"}
    uninterrupted = lesson("speaks", config=speaks)
    assert_same(uninterrupted, whole[0])
    with pytest.raises(Broken):
        lesson("broken", config=speaks, broken_at=4)
    assert_same(lesson("broken", config=speaks, resume=True), uninterrupted)
    assert record(tmp_path / "broken") == record(tmp_path / "speaks")


@pytest.mark.parametrize("broken_at", range(1, STEPS + 1))
def test_a_run_broken_off_at_any_step_ends_with_the_same_student_and_the_same_record(
    broken_at: int, lesson: Any, whole: Any, tmp_path: Path
) -> None:
    student, directory = whole
    with pytest.raises(Broken):
        lesson("broken", broken_at=broken_at)
    random.seed(99), torch.manual_seed(99)  # the process that goes on is another
    assert_same(lesson("broken", resume=True), student)
    assert record(tmp_path / "broken") == record(directory)
    steps = [event.step for event in read_events(tmp_path / "broken") if event.kind == "step"]
    assert steps == list(range(1, STEPS + 1))
    held = [event.step for event in read_events(tmp_path / "broken") if event.kind == "exam"]
    assert held == list(range(0, STEPS + 1, 2))


def test_the_optimizer_the_schedule_and_the_generators_end_as_they_would_have(lesson: Any, tmp_path: Path) -> None:
    def ends(run: str) -> dict[str, bytes]:
        newest, _ = newest_snapshot(tmp_path / run / "checkpoints")
        assert newest is not None
        files = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
        state = json.loads((newest / "state.json").read_bytes())
        return files | {key: json.dumps(state[key]).encode() for key in ("ranks", "optimizer")}

    lesson("whole")
    with pytest.raises(Broken):
        lesson("broken", broken_at=5)
    lesson("broken", resume=True)
    assert ends("broken") == ends("whole")


LAYERS_AND_ON_POLICY = {
    "hidden_weight": 0.5,
    "attention_weight": 0.5,
    "layer_map": "even",
    "on_policy": 0.5,
    "on_policy_tokens": 5,
}


@pytest.mark.parametrize("broken_at", [1, 4, 7])
def test_projections_and_the_texts_that_the_student_writes_go_on_too(
    broken_at: int, lesson: Any, tmp_path: Path
) -> None:
    whole = lesson("whole", config=LAYERS_AND_ON_POLICY)
    with pytest.raises(Broken):
        lesson("broken", broken_at=broken_at, config=LAYERS_AND_ON_POLICY)
    random.seed(99), torch.manual_seed(99)
    assert_same(lesson("broken", resume=True, config=LAYERS_AND_ON_POLICY), whole)
    assert record(tmp_path / "broken") == record(tmp_path / "whole")
    assert {event.ce is None for event in read_events(tmp_path / "whole") if event.kind == "step"} == {True, False}
    newest, _ = newest_snapshot(tmp_path / "broken" / "checkpoints")
    assert newest is not None
    beside, student = load_file(newest / "beside.safetensors"), load_file(newest / "student.safetensors")
    assert {key: tuple(one.shape) for key, one in beside.items()} == {"projections.0.weight": (32, 16)}
    assert not any("projection" in key for key in student)


def test_a_checkpoint_without_its_projections_is_not_taken_up(lesson: Any, tmp_path: Path) -> None:
    with pytest.raises(Broken):
        lesson("broken", broken_at=3)
    with pytest.raises(ConfigError, match=r"hidden_weight: 0\.0 then, 0\.5 now"):
        lesson("broken", resume=True, config=LAYERS_AND_ON_POLICY)
    with pytest.raises(StorageError, match=r"cannot be restored.*beside\.safetensors"):
        lesson("broken", resume=True, resume_anyway=True, config=LAYERS_AND_ON_POLICY)


def test_a_checkpoint_from_before_a_setting_was_there_is_taken_up() -> None:
    then = {key: field.default for _, key, field in settings()}
    before = {key: value for key, value in then.items() if key not in {*LAYERS_AND_ON_POLICY, "wide_matmul"}}
    assert differences(before, then) == []
    assert differences(before, {**then, "on_policy": 0.5}) == ["on_policy: 0.0 then, 0.5 now"]
    assert differences(before, {**then, "wide_matmul": "off"}) == ["wide_matmul: auto then, off now"]


@pytest.mark.parametrize("broken_at", [2, 4])
def test_data_loader_workers_and_their_random_transforms_go_on_too(broken_at: int, lesson: Any, tmp_path: Path) -> None:
    whole = lesson("whole", workers=2)
    with pytest.raises(Broken):
        lesson("broken", workers=2, broken_at=broken_at)
    assert_same(lesson("broken", workers=2, resume=True), whole)


def test_a_loader_with_a_generator_of_its_own_goes_on(lesson: Any, make_batches: Any) -> None:
    def data() -> DataLoader[Any]:
        rows = Noisy(make_batches(count=5, rows=4))
        return DataLoader(rows, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5))

    whole = lesson("whole", data=data())
    with pytest.raises(Broken):
        lesson("broken", data=data(), broken_at=5)
    assert_same(lesson("broken", data=data(), resume=True), whole)


def test_validation_cards_and_scores_go_on(lesson: Any, tmp_path: Path, make_batches: Any) -> None:
    more = {"config": {"show_on": "validation"}}
    whole = lesson("whole", eval_dataloader=make_batches(count=3, seed=7), **more)
    more = {"config": {"show_on": "validation"}}
    with pytest.raises(Broken):
        lesson("broken", eval_dataloader=make_batches(count=3, seed=7), broken_at=4, **more)
    more = {"config": {"show_on": "validation"}}
    assert_same(lesson("broken", eval_dataloader=make_batches(count=3, seed=7), resume=True, **more), whole)
    assert record(tmp_path / "broken") == record(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_step_finish_saves_and_says_where(
    number: signal.Signals, code: int, lesson: Any, whole: Any
) -> None:
    class Sender(Breaker):
        def emit(self, event: Any) -> None:
            if event.kind == "step" and event.step == 3:
                os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(
        Interrupted, match=r"the run is saved\. Last good checkpoint: step 3 \(.*step-00000003\)"
    ) as stop:
        lesson("broken", sinks=[Sender(0)], config={"save_steps": None})
    assert stop.value.exit_code == code
    assert signal.getsignal(number) is handler
    assert_same(lesson("broken", resume=True, config={"save_steps": None}), whole[0])


POINTS = ["begin", "after_student", "after_optimizer", "after_generators", "after_state", "before_rename"]
POINTS += ["after_rename", "end"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), OSError(5, "Input/output error"), Broken()])
def test_a_save_that_fails_anywhere_leaves_the_checkpoint_before_and_nothing_half(
    point: str, kind: BaseException, lesson: Any, whole: Any, tmp_path: Path
) -> None:
    seen = []

    def fail() -> None:
        seen.append(point)
        if len(seen) == 3:
            raise kind

    faults.arm(f"checkpoint.{point}", fail)
    with pytest.raises((StorageError, Broken)) as caught:
        lesson("broken")
    faults.disarm()
    if isinstance(kind, OSError):
        assert isinstance(caught.value, StorageError)
        assert caught.value.exit_code == 5
        assert f"got {kind.strerror}" in str(caught.value)
        assert "Last good checkpoint: step 2" in str(caught.value) or point in ("after_rename", "end")
    folder = tmp_path / "broken" / "checkpoints"
    newest, skipped = newest_snapshot(folder)
    assert newest is not None
    assert skipped == []
    assert newest.name in ("step-00000002", "step-00000003")
    assert_same(lesson("broken", resume=True), whole[0])
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("file", ["student", "optimizer", "generators", "state", "manifest"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "missing"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(
    file: str, damage: str, lesson: Any, tmp_path: Path
) -> None:
    with pytest.raises(Broken):
        lesson("run", broken_at=3)
    folder = tmp_path / "run" / "checkpoints"
    *_, before, newest = snapshots(folder)
    path = next(newest.glob(f"{file}.*"))
    whole = path.read_bytes()
    flipped = bytes([*whole[:20], whole[20] ^ 1, *whole[21:]])
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "flipped": flipped, "missing": b""}[damage])
    if damage == "missing":
        path.unlink()
    assert path.name in (why_damaged(newest) or "") or file == "manifest"
    with pytest.raises(
        StorageError, match=rf"{newest.name} cannot be used.* Fix: resume from .*{before.name}"
    ) as caught:
        lesson("run", resume=True, start=f"run/checkpoints/{newest.name}")
    assert caught.value.exit_code == 5
    lesson("run", resume=True)
    told = [event.values for event in read_events(tmp_path / "run") if event.kind == "notice"]
    assert told == []  # what was said while the run was taken up is not part of its record


@pytest.mark.parametrize("point", ["between_renames", "after_rename"])
def test_a_checkpoint_written_twice_at_a_step_is_never_lost(
    point: str, lesson: Any, whole: Any, tmp_path: Path
) -> None:
    def fail() -> None:
        if (tmp_path / "broken" / "summary.json").exists() or not snapshots(tmp_path / "broken" / "checkpoints"):
            return
        if any(path.name.startswith("step-00000003") for path in snapshots(tmp_path / "broken" / "checkpoints")):
            raise Broken

    faults.arm(f"checkpoint.{point}", fail)  # step 3 ends an epoch, and is one of every step's checkpoints
    with pytest.raises(Broken):
        lesson("broken", config={"save_total_limit": 1})
    faults.disarm()
    newest, _ = newest_snapshot(tmp_path / "broken" / "checkpoints")
    assert newest is not None
    assert newest.stem == "step-00000003"
    assert_same(lesson("broken", resume=True, config={"save_total_limit": 1}), whole[0])


def test_what_came_after_the_checkpoint_that_is_gone_on_from_is_gone(lesson: Any, whole: Any, tmp_path: Path) -> None:
    with pytest.raises(Broken):
        lesson("run", broken_at=7)
    with pytest.raises(Broken):
        lesson("run", resume=True, start="run/checkpoints/step-00000003", broken_at=5)
    assert [int(path.name[-2:]) for path in snapshots(tmp_path / "run" / "checkpoints")] == [1, 2, 3, 4]
    assert_same(lesson("run", resume=True), whole[0])
    assert record(tmp_path / "run") == record(whole[1])


@pytest.mark.parametrize("kind", ["multi_step", "plateau", "one_cycle"])
def test_a_schedule_of_the_users_own_goes_on(
    kind: str, make_model: Any, teacher: Any, make_batches: Any, tmp_path: Path
) -> None:
    def rates(name: str, broken_at: int = 0, resume: bool = False) -> list[float]:
        student = make_model(hidden=16, layers=1, seed=2)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        scheduler: Any = {
            "multi_step": lambda: torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6]),
            "plateau": lambda: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5),
            "one_cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20),
        }[kind]()
        VisualDistillationPlugin({"seed": 0, "save_steps": 1}).visual_distill_model(
            student,
            teacher,
            make_batches(count=8),
            optimizer=optimizer,
            scheduler=scheduler,
            num_epochs=1,
            device="cpu",
            run_dir=tmp_path / name,
            resume_from=tmp_path / name if resume else None,
            sinks=[Breaker(broken_at)] if broken_at else [],
        )
        return [event.learning_rate for event in read_events(tmp_path / name) if event.kind == "step"]

    whole = rates("whole")
    with pytest.raises(Broken):
        rates("broken", broken_at=4)
    assert rates("broken", resume=True) == whole
    assert len(set(whole)) > 1


def test_a_refused_resume_leaves_the_run_as_it_was(lesson: Any, tmp_path: Path) -> None:
    with pytest.raises(Broken):
        lesson("run", broken_at=3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")}
    with pytest.raises(ConfigError, match=r"temperature: 4\.0 then, 2\.0 now"):
        lesson("run", resume=True, config={"temperature": 2.0})
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")} == before
    lesson("other")
    with pytest.raises(ConfigError, match="resume_from is not in run_dir"):
        lesson("other", resume=True, start="run")


def test_a_finished_run_without_its_checkpoints_is_not_begun_anew(lesson: Any, tmp_path: Path) -> None:
    lesson("run")
    before = (tmp_path / "run" / EVENTS).read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(StorageError, match="finished run without a checkpoint"):
        lesson("run", resume=True)
    assert (tmp_path / "run" / EVENTS).read_bytes() == before


def test_a_step_that_is_not_finite_keeps_its_batch_whatever_shares_its_memory(
    lesson: Any, teacher: Any, make_batches: Any, tmp_path: Path
) -> None:
    ids = make_batches(count=1)[0]["input_ids"]
    broken = copy.deepcopy(teacher)
    with torch.no_grad():
        broken.lm_head.weight[5] = float("nan")
    blamed = r"the teacher's logits .* inspect the step's batches: .*nonfinite-step-00000001"
    with pytest.raises(NumericError, match=blamed):
        lesson("run", teacher=broken, data=[{"input_ids": ids, "labels": ids}])
    kept = load_file(tmp_path / "run" / "nonfinite-step-00000001.safetensors")
    assert torch.equal(kept["0.labels"], ids)


def test_what_is_skipped_and_where_the_run_goes_on_is_told(lesson: Any, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(Broken):
        lesson("run", broken_at=3)
    *_, newest = snapshots(tmp_path / "run" / "checkpoints")
    (newest / "optimizer.safetensors").write_bytes(b"")
    lesson("run", resume=True, sinks=None)
    shown = "".join(capsys.readouterr().out.split())
    assert "跳过了损坏的检查点:step-00000002:optimizer.safetensorshas0bytes" in shown
    assert "从检查点继续:step1" in shown


def test_settings_sizes_and_data_that_are_not_what_they_were_are_listed(lesson: Any, make_batches: Any) -> None:
    with pytest.raises(Broken):
        lesson("run", broken_at=3)
    with pytest.raises(ConfigError, match=r"temperature: 4\.0 then, 2\.0 now; num_epochs: 3 then, 4 now") as caught:
        lesson("run", resume=True, config={"temperature": 2.0}, num_epochs=4)
    assert caught.value.exit_code == 2
    other = DataLoader(Noisy(make_batches(count=5, rows=4, seed=8)), batch_size=4, shuffle=True)
    with pytest.raises(ConfigError, match=r"data: 20 entries \(\w{12}\) then, 20 entries \(\w{12}\) now"):
        lesson("run", resume=True, data=other)
    lesson("run", resume=True, num_epochs=4, resume_anyway=True)


def test_a_run_that_is_over_is_taken_up_without_a_step_and_can_be_made_longer(lesson: Any, tmp_path: Path) -> None:
    whole = lesson("run")
    assert_same(lesson("run", resume=True), whole)
    assert [event.step for event in read_events(tmp_path / "run") if event.kind == "run_finished"] == [STEPS]


WORSE_AND_WORSE = {"save_total_limit": 1, "learning_rate": 9.0, "warmup_ratio": 1.0}  # a rate that only rises


def test_the_newest_and_the_best_checkpoint_are_kept(lesson: Any, tmp_path: Path, make_batches: Any) -> None:
    lesson("run", config=dict(WORSE_AND_WORSE), eval_dataloader=make_batches(count=1, seed=7))
    scores = {e.step: e.validation.loss for e in read_events(tmp_path / "run") if e.kind == "epoch_finished"}
    best = min(scores, key=lambda step: scores[step])
    kept = [int(path.name.rpartition("-")[2]) for path in snapshots(tmp_path / "run" / "checkpoints")]
    assert (best, kept) == (3, [3, STEPS])


def test_a_resumed_run_remembers_which_checkpoint_is_the_best(lesson: Any, tmp_path: Path, make_batches: Any) -> None:
    how = WORSE_AND_WORSE
    looked_at = make_batches(count=1, seed=7)
    with pytest.raises(Broken):
        lesson("run", config=dict(how), eval_dataloader=looked_at, broken_at=5)
    lesson("run", config=dict(how), eval_dataloader=looked_at, resume=True)
    scores = {e.step: e.validation.loss for e in read_events(tmp_path / "run") if e.kind == "epoch_finished"}
    assert min(scores, key=lambda step: scores[step]) == 3
    assert [int(path.name[-2:]) for path in snapshots(tmp_path / "run" / "checkpoints")] == [3, STEPS]


def test_a_number_that_cannot_be_is_a_storage_error(lesson: Any, tmp_path: Path) -> None:
    from apt_model.distill.checkpoints.progress import Progress

    with pytest.raises(ValueError, match="step is 1000000000000000"):
        Progress().load_state_dict({**Progress().state_dict(), "step": 10**15})
    for wrong in (-1, "3", 2.0, True, float("nan")):
        with pytest.raises(ValueError, match="step is"):
            Progress().load_state_dict({**Progress().state_dict(), "step": wrong})


def test_resuming_needs_a_run_and_a_whole_checkpoint(lesson: Any, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no run to resume"):
        lesson("nowhere", resume=True)
    with pytest.raises(Broken):
        lesson("run", broken_at=2)
    for path in snapshots(tmp_path / "run" / "checkpoints"):
        (path / "manifest.json").unlink()
    with pytest.raises(StorageError, match=r"no intact checkpoint .*step-00000001: manifest\.json"):
        lesson("run", resume=True)


SCRIPT = """
import sys, time
from pathlib import Path
from apt_model.storage import one_writer
with one_writer(Path(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_with_the_first_ones_pid_and_a_dead_ones_lock_counts_for_nothing(
    lesson: Any, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    first = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding\n"
        with pytest.raises(StorageError, match=f"is being written; got process {first.pid}"):
            lesson("run")
    finally:
        first.kill()
        first.communicate()
    lesson("run")
