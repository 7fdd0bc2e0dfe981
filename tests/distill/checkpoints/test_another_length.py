"""A run that is resumed with another length or other rates follows them from its first step on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from apt_model.errors import ConfigError
from apt_model.events.runfile import read_events
from apt_model.plugins.distillation_plugin import DistillationPlugin

Lesson = Callable[..., list[float]]


@pytest.fixture
def lesson(make_model: Callable[..., Any], teacher: Any, make_batches: Any, tmp_path: Path) -> Lesson:
    """Trains or resumes in a directory, four steps an epoch; returns the rate of each step of its record."""

    def run(
        *, epochs: int = 9, resume: bool = False, optimizer: Any = None, scheduler: Any = None, **config: Any
    ) -> list[float]:
        student = make_model(hidden=16, layers=1, seed=2)
        trained = optimizer(student.parameters()) if optimizer else None
        DistillationPlugin({"seed": 0, "learning_rate": 0.1, "save_steps": 2, **config}).distill_model(
            student,
            teacher,
            make_batches(count=4),
            num_epochs=epochs,
            optimizer=trained,
            scheduler=scheduler(trained) if scheduler else None,
            device="cpu",
            run_dir=tmp_path / "run",
            resume_from=tmp_path / "run" if resume else None,
            resume_anyway=resume,
            sinks=[],
        )
        return [event.learning_rate for event in read_events(tmp_path / "run") if event.kind == "step"]

    return run


def rates(kind: str, steps: int, warmup: float, peak: float = 0.1) -> list[float]:
    """The rate of each step by transformers' own schedule, from the beginning."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=int(warmup * steps), num_training_steps=steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize(("steps", "warmup"), [(12, 0.5), (6, 0.5), (30, 0.9), (12, 0.0)])
def test_resumed_with_another_length_each_step_has_the_rate_of_the_new_schedule(
    kind: str, steps: int, warmup: float, lesson: Lesson
) -> None:
    how = {"lr_scheduler_type": kind, "warmup_ratio": warmup}
    assert lesson(max_steps=4, **how) == pytest.approx(rates(kind, 4, warmup))
    assert lesson(max_steps=steps, resume=True, **how)[4:] == pytest.approx(rates(kind, steps, warmup)[4:])


def test_resumed_with_more_epochs_another_rate_and_another_warm_up_these_are_followed(lesson: Lesson) -> None:
    lesson(epochs=1, lr_scheduler_type="linear", warmup_ratio=0.0)
    resumed = lesson(epochs=3, lr_scheduler_type="cosine", warmup_ratio=0.25, learning_rate=0.03, resume=True)
    assert resumed[4:] == pytest.approx(rates("cosine", 12, 0.25, peak=0.03)[4:])


def test_a_weight_decay_that_was_changed_is_the_one_that_decays(lesson: Lesson, tmp_path: Path) -> None:
    from apt_model.storage import read_json, snapshots

    def decays() -> list[float]:
        newest = snapshots(tmp_path / "run" / "checkpoints")[-1]
        return [group["weight_decay"] for group in read_json(newest / "state.json")["optimizer"]["groups"]]

    lesson(max_steps=4, weight_decay=0.01)
    assert decays() == [0.01, 0.0]
    lesson(max_steps=6, weight_decay=0.5, resume=True)
    assert decays() == [0.5, 0.0]


def test_a_users_own_schedule_goes_on_where_it_was(lesson: Lesson) -> None:
    own = {
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5),
    }
    whole = [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025]
    assert lesson(max_steps=4, **own) == pytest.approx(whole[:4])
    assert lesson(max_steps=8, resume=True, **own) == pytest.approx(whole)


SCHEDULERS = torch.optim.lr_scheduler
GIVEN: dict[str, Callable[[Any, int], Any]] = {
    "lambda": lambda optimizer, steps: SCHEDULERS.LambdaLR(optimizer, lambda step: 1 - step / steps),
    "transformers": lambda optimizer, steps: get_scheduler("cosine", optimizer, 1, steps),
    "cosine": lambda optimizer, steps: SCHEDULERS.CosineAnnealingLR(optimizer, T_max=steps),
    "one cycle": lambda optimizer, steps: SCHEDULERS.OneCycleLR(optimizer, max_lr=0.5, total_steps=steps + 1),
    "sequence": lambda optimizer, steps: SCHEDULERS.SequentialLR(
        optimizer,
        [
            SCHEDULERS.LinearLR(optimizer, 0.1, total_iters=2),
            SCHEDULERS.LinearLR(optimizer, 1.0, 0.0, total_iters=steps - 2),
        ],
        milestones=[2],
    ),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_users_own_schedule_that_was_made_longer_is_followed_from_the_first_step_on(
    kind: str, lesson: Lesson
) -> None:
    def own(steps: int) -> dict[str, Any]:
        return {
            "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
            "scheduler": lambda optimizer: GIVEN[kind](optimizer, steps),
        }

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    schedule, whole = GIVEN[kind](optimizer, 8), []
    for _ in range(8):
        whole.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    lesson(max_steps=4, **own(4))
    assert lesson(max_steps=8, resume=True, **own(8))[4:] == pytest.approx(whole[4:])


def test_a_schedule_that_ends_before_the_run_is_refused_in_our_words(lesson: Lesson) -> None:
    own = {
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        "scheduler": lambda optimizer: SCHEDULERS.OneCycleLR(optimizer, max_lr=0.5, total_steps=3),
    }
    with pytest.raises(ConfigError, match=r"the scheduler has no rate for the next step.*total steps is 3"):
        lesson(max_steps=6, **own)


def test_a_checkpoint_past_the_new_end_is_refused_with_both_numbers(lesson: Lesson) -> None:
    lesson(max_steps=6)
    with pytest.raises(ConfigError, match="past the end of the run; got 6, expected max_steps 4 at most"):
        lesson(max_steps=4, resume=True)
    with pytest.raises(ConfigError, match="got 2, expected num_epochs 1 at most"):
        lesson(epochs=1, resume=True)
