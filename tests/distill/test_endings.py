"""Where a run ends and how it can go on: at max_steps, in gradients that never become finite, before it has begun."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from apt_model.distill import loop
from apt_model.errors import ConfigError, NumericError, StorageError
from apt_model.events.records import EpochFinished, Notice, StepDone
from apt_model.events.runfile import EVENTS, RunFile, read_events
from apt_model.plugins import kept_student
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.conftest import Listener
from tests.distill.test_loop import run

STEADY = {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.0, "learning_rate": 0.01, "seed": 0}


@pytest.fixture
def taught(make_model: Callable[..., Any], teacher: Any, make_batches: Any, tmp_path: Path) -> Any:
    """A lesson of some steps over shuffled data, five to an epoch, begun or gone on with; the student's weights."""

    def teach(name: str, max_steps: int, *, resume: bool = False, anyway: bool = True) -> dict[str, torch.Tensor]:
        student = make_model(hidden=16, layers=1, seed=2, attention_dropout=0.1)
        rows = torch.cat([batch["input_ids"] for batch in make_batches(count=5)])
        VisualDistillationPlugin({**STEADY, "max_steps": max_steps, "sample_frequency": 2}).visual_distill_model(
            student,
            teacher,
            DataLoader(rows, batch_size=4, shuffle=True),
            device="cpu",
            run_dir=tmp_path / name,
            resume_from=tmp_path / name if resume else None,
            resume_anyway=resume and anyway,
            sinks=[],
        )
        return {key: value.clone() for key, value in student.state_dict().items()}

    return teach


def told(directory: Path) -> list[tuple[Any, ...]]:
    """What a record says of steps, cards and epochs."""
    keys = ("step", "epoch", "batch", "loss", "mean_loss", "tokens", "samples", "student_text")
    events = [event for event in read_events(directory) if event.kind in ("step", "card", "epoch_finished")]
    return [(event.kind, *(getattr(event, key, None) for key in keys)) for event in events]


@pytest.mark.parametrize("first", [3, 5, 8])
def test_more_max_steps_go_on_in_the_middle_of_the_epoch_as_if_they_had_been_asked_for_at_once(
    first: int, taught: Any, tmp_path: Path
) -> None:
    whole = taught("whole", 12)
    taught("longer", first)
    taught("longer", first, resume=True, anyway=False)  # nothing is left to do, and nothing is lost by it
    assert [one[1] for one in told(tmp_path / "longer") if one[0] == "step"] == list(range(1, first + 1))
    assert len([one for one in told(tmp_path / "longer") if one[0] == "epoch_finished"]) == math.ceil(first / 5)
    longer = taught("longer", 12, resume=True)
    assert told(tmp_path / "longer") == told(tmp_path / "whole")
    assert all(torch.equal(longer[key], whole[key]) for key in whole)


def endless(batches: list[Any]) -> Any:
    """The same batches, without a length."""

    class Stream:
        def __iter__(self) -> Any:
            return iter(batches)

    return Stream()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, True),
        ({"max_steps": 4}, False),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.0}, False),
    ],
)
def test_a_rate_that_cannot_follow_its_schedule_is_told_of_once(
    settings: dict[str, Any], says: bool, listener: Listener, student: Any, teacher: Any, make_batches: Any
) -> None:
    run(listener, student, teacher, endless(make_batches()), num_epochs=2, **settings)
    told = [notice for notice in listener.of(Notice) if notice.key == "notice.no_length"]
    assert len(told) == says
    rates = {step.learning_rate for step in listener.of(StepDone)}
    assert (len(rates) == 1) == (settings != {"max_steps": 4})


def fp16_on_the_cpu(device: torch.device, mixed_precision: str) -> Accelerator:
    """accelerate refuses fp16 there; torch does not: its casts and its scaler work."""
    made = Accelerator(cpu=True)
    made.state._mixed_precision, made.native_amp = "fp16", True
    made.scaler = torch.amp.GradScaler("cpu")
    return made


@pytest.mark.parametrize(
    ("settings", "steps"), [({}, 17), ({"on_nonfinite": "skip", "max_nonfinite": 3}, 20)], ids=["stop", "skip"]
)
def test_gradients_that_no_scale_makes_finite_end_the_run(
    settings: dict[str, Any], steps: int, listener: Listener, student: Any, teacher: Any, make_batches: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The scaler halves 65,536 down to 1 in sixteen steps: what is not finite then is no matter of scale."""
    monkeypatch.setattr(loop, "make_accelerator", fp16_on_the_cpu)
    student.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    with pytest.raises(NumericError, match=r"is not finite; got loss \d.*, gradient norm (inf|nan)") as caught:
        run(listener, student, teacher, make_batches(count=40), **settings)
    assert caught.value.exit_code == 4
    notices = [notice for notice in listener.of(Notice) if notice.key == "notice.nonfinite"]
    assert len(notices) == steps - 16
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_a_scale_that_is_too_high_at_first_is_lowered_and_the_student_learns(
    listener: Listener, student: Any, teacher: Any, make_batches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Accelerator] = []

    def make(device: torch.device, mixed_precision: str) -> Accelerator:
        made.append(fp16_on_the_cpu(device, mixed_precision))
        return made[0]

    monkeypatch.setattr(loop, "make_accelerator", make)
    student.lm_head.weight.register_hook(lambda g: g * math.inf if made[0].scaler.get_scale() > 1000 else g)
    run(listener, student, teacher, make_batches(count=12), num_epochs=4)
    norms = [step.grad_norm for step in listener.of(StepDone)]
    assert [math.isfinite(norm) for norm in norms] == [False] * 7 + [True] * 41  # 65,536 to 512
    losses = [epoch.mean_loss for epoch in listener.of(EpochFinished)]
    assert losses[-1] < losses[0]


def test_a_loss_that_is_not_finite_for_once_is_skipped_under_fp16_too(
    listener: Listener, student: Any, teacher: Any, make_batches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "make_accelerator", fp16_on_the_cpu)
    calls: list[int] = []

    def spoil(module: nn.Module, given: Any, output: Any) -> Any:
        calls.extend([1] * module.training)
        return output * math.nan if len(calls) == 3 else output

    student.model.norm.register_forward_hook(spoil)
    run(listener, student, teacher, make_batches(count=6), on_nonfinite="skip")
    assert len(listener.of(StepDone)) == 5
    assert len([notice for notice in listener.of(Notice) if notice.key == "notice.nonfinite"]) == 1
    assert all(torch.isfinite(p).all() for p in student.parameters())


class Odd(torch.optim.lr_scheduler.LambdaLR):
    """A schedule that keeps what cannot be written down: what is no JSON value, or itself."""

    kept: Any = object()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "kept": self.kept}


@pytest.mark.parametrize("what", ["schedule", "circle", "student"])
def test_what_could_not_be_kept_is_refused_before_the_first_step(
    what: str, student: Any, teacher: Any, make_batches: Any, tmp_path: Path, listener: Listener
) -> None:
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    schedule = Odd(optimizer, lambda step: 1.0) if what != "student" else None
    if what == "circle":
        circle: dict[str, Any] = {}
        circle["inside"] = schedule.kept = circle
    if what == "student":
        type(student).get_extra_state = lambda self: {"calls": 3}  # where torch looks for it
        type(student).set_extra_state = lambda self, state: None
    try:
        whose = "student's state_dict" if what == "student" else "run's state"
        with pytest.raises(ConfigError, match=f"checkpoints cannot hold the {whose}; got ") as caught:
            DistillationPlugin({}).distill_model(
                student, teacher, make_batches(), optimizer, scheduler=schedule, device="cpu", run_dir=tmp_path / "run",
                sinks=[listener],
            )  # fmt: skip
    finally:
        if what == "student":
            del type(student).get_extra_state, type(student).set_extra_state
    assert caught.value.exit_code == 2
    assert listener.events == []


@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), StorageError("model", got="no room")])
def test_a_student_that_cannot_be_saved_at_the_end_names_the_checkpoint_it_is_in(
    kind: OSError, student: Any, teacher: Any, make_batches: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: nn.Module, tokenizer: Any, path: Path, **_: Any) -> None:
        path.mkdir()
        (path / "half").touch()
        raise kind

    size = sum(p.numel() * p.element_size() for p in student.parameters())
    monkeypatch.setattr(kept_student, "save_model", fail)
    with pytest.raises(StorageError) as caught:
        DistillationPlugin({}).distill_model(
            student, teacher, make_batches(), num_epochs=1, device="cpu", run_dir=tmp_path / "run", sinks=[]
        )
    line = str(caught.value)
    assert f"expected about {size:,} bytes of free space" in line
    assert line.endswith(f"Last good checkpoint: step 4 ({tmp_path}/run/checkpoints/step-00000004).")
    assert "No space left on device" in line or "no room" in line
    assert not (tmp_path / "run" / ".student").exists()


def test_a_record_that_fails_once_loses_nothing_and_ends_nothing(
    student: Any, teacher: Any, make_batches: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's own line does not fit, its card's does, and the line before it then."""
    append, calls = RunFile._append, []

    def flaky(self: RunFile, line: bytes) -> None:
        calls.append(line)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        append(self, line)

    monkeypatch.setattr(RunFile, "_append", flaky)
    VisualDistillationPlugin({"sample_frequency": 1}).visual_distill_model(
        student, teacher, make_batches(), num_epochs=1, device="cpu", run_dir=tmp_path / "run", sinks=[]
    )
    kinds = [event.kind for event in read_events(tmp_path / "run")]
    assert kinds[:5] == ["run_started", "epoch_started", "reading", "step", "card"]
    assert len(calls) == (tmp_path / "run" / EVENTS).read_bytes().count(b"\n") + 1


def test_a_record_that_fails_for_good_is_an_error_that_names_the_checkpoint_made_for_it(
    student: Any, teacher: Any, make_batches: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    append = RunFile._append

    def full(self: RunFile, line: bytes) -> None:
        if b'"kind":"step","run_id"' in line and b'"step":3,' in line:
            raise OSError(28, "No space left on device")
        append(self, line)

    def teach(**how: Any) -> None:
        DistillationPlugin({"seed": 0}).distill_model(
            student, teacher, make_batches(), num_epochs=1, device="cpu", run_dir=tmp_path / "run", sinks=[], **how
        )

    with monkeypatch.context() as patched:
        patched.setattr(RunFile, "_append", full)
        with pytest.raises(StorageError, match=r"No space left on device\. Fix: .*Last good checkpoint: step 3") as no:
            teach()
    assert no.value.exit_code == 5
    assert capsys.readouterr().err == ""
    assert [event.step for event in read_events(tmp_path / "run") if event.kind == "step"] == [1, 2]
    teach(resume_from=tmp_path / "run")
    assert [event.step for event in read_events(tmp_path / "run") if event.kind == "step"] == [1, 2, 3, 4]
