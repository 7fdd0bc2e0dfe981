"""The lesson in a tracker: what TensorBoard has kept, by its own reader; others are refused where missing."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.records import ScoredObservation, StepDone
from apt_model.events.runfile import read_events
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 2


def teach(models: tuple[Any, Any, Any], run: Path, *, report_to: tuple[str, ...]) -> None:
    student, teacher, tokenizer = models
    config = {"sample_frequency": 2, "seed": 0, "report_to": report_to, "learning_rate": 1e-2}
    VisualDistillationPlugin(config).visual_distill_model(
        student_model=student,
        teacher_model=teacher,
        train_dataloader=[LINES[:4], LINES[4:]],
        tokenizer=tokenizer,
        num_epochs=2,
        device="cpu",
        run_dir=run,
        sinks=[],
    )


def test_tensorboard_has_every_number_and_every_card(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard (dev extra)"
    )
    with_it, without = make_model(seed=3), make_model(seed=3)
    teach((with_it, teacher, tokenizer), tmp_path / "run", report_to=("tensorboard",))
    teach((without, teacher, tokenizer), tmp_path / "other", report_to=())
    assert all(torch.equal(one, two) for one, two in zip(with_it.parameters(), without.parameters(), strict=True))
    (directory,) = {path.parent for path in (tmp_path / "run").rglob("events.out.tfevents*")}
    kept = accumulators.EventAccumulator(str(directory), size_guidance={"tensors": 0, "scalars": 0})
    kept.Reload()
    events = list(read_events(tmp_path / "run"))
    steps = [event for event in events if isinstance(event, StepDone)]
    cards = [event for event in events if isinstance(event, ScoredObservation)]
    assert [(one.step, one.value) for one in kept.Scalars("train/loss")] == [
        (step.step, pytest.approx(step.loss, rel=1e-6)) for step in steps
    ]
    assert [one.value for one in kept.Scalars("lesson/laziness")] == pytest.approx([card.laziness for card in cards])
    texts = [
        one.tensor_proto.string_val[0].decode()
        for tag in kept.Tags()["tensors"]
        if "lesson/cards" in tag
        for one in kept.Tensors(tag)
    ]
    assert len(texts) == len(cards) > 0


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(
    name: str, make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed here")
    with pytest.raises(ConfigError, match=f"not installed: {name}.*pip install {name}"):
        teach((make_model(seed=3), teacher, tokenizer), tmp_path / "run", report_to=(name,))
    assert not (tmp_path / "run" / "events.jsonl").exists()


def test_a_tracker_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="report_to"):
        LessonConfig.from_dict({"report_to": ("tensorbord",)})
