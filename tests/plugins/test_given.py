"""Settings objects of other trainers, as the config of a plugin."""

import argparse
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainingArguments

from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.records import Notice, StepDone
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.given import Given
from apt_model.plugins.visual_distillation_plugin import quick_visual_distill


@pytest.fixture
def classroom(teacher: Any, student: Any, tokenizer: Any, make_batches: Any) -> dict[str, Any]:
    """The first arguments of a plugin's call."""
    batches = make_batches()
    return {"student_model": student, "teacher_model": teacher, "train_dataloader": batches, "tokenizer": tokenizer}


def arguments(path: Path, **values: Any) -> TrainingArguments:
    return TrainingArguments(**{"output_dir": str(path), "use_cpu": True, "report_to": "none", **values})


def test_the_settings_of_training_arguments_are_the_lessons(tmp_path: Path) -> None:
    given = arguments(
        tmp_path, learning_rate=1e-3, num_train_epochs=2, warmup_steps=0.1, lr_scheduler_type="cosine", bf16=True,
        gradient_accumulation_steps=4, max_grad_norm=0.5, weight_decay=0.1, seed=7, save_steps=9, save_total_limit=3,
    )  # fmt: skip
    found = Given.of(given)
    values = found.config.to_dict()
    same = ("learning_rate", "gradient_accumulation_steps", "max_grad_norm", "weight_decay", "seed", "save_steps")
    assert {key: values[key] for key in same} == {key: getattr(given, key) for key in same}
    meant = {"num_epochs": 2, "warmup_ratio": 0.1, "lr_scheduler_type": "cosine", "mixed_precision": "bf16"}
    meant |= {"max_steps": None, "report_to": (), "device": "cpu", "save_total_limit": 3}
    assert {key: values[key] for key in meant} == meant
    assert (found.run_dir, found.notices) == (str(tmp_path), ())


def test_training_arguments_as_they_come_are_taken_with_their_own_defaults() -> None:
    given = TrainingArguments()
    values = Given.of(given).config.to_dict()
    for ours, theirs in (("learning_rate", "learning_rate"), ("num_epochs", "num_train_epochs"), ("seed", "seed")):
        assert values[ours] == getattr(given, theirs)
    assert (values["warmup_ratio"], values["lr_scheduler_type"]) == (0.0, "linear")
    assert Given.of(given).run_dir is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optim": "sgd"}, "optim 'sgd': not here; the optimizer is AdamW"),
        ({"warmup_steps": 10}, "warmup_steps 10: warmup_ratio is the share of the steps"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor 0.1: not here"),
        ({"num_train_epochs": 0.5}, "max_steps stops within one"),
        ({"adam_beta2": 0.95}, "adam_beta2 0.95: not here"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha 5.0"),
        ({"length_column_name": "n"}, "unknown key 'length_column_name'"),
    ],
)
def test_what_would_change_the_student_and_is_not_ours_is_refused(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        DistillationPlugin(arguments(tmp_path, **values))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_only_shows_or_stores_is_told_once_in_the_run(classroom: dict[str, Any], tmp_path: Path) -> None:
    given = arguments(tmp_path / "run", num_train_epochs=1, logging_steps=3, per_device_train_batch_size=3)
    events: list[Any] = []
    sink = SimpleNamespace(emit=events.append, close=lambda: None)
    DistillationPlugin(given).distill_model(**classroom, sinks=[sink])
    told = [event.values["what"] for event in events if isinstance(event, Notice) and "decided" in event.key]
    assert told == ["per_device_train_batch_size=3, logging_steps=3"]
    assert {event.epoch for event in events if isinstance(event, StepDone)} == {1}
    assert (tmp_path / "run" / "student").is_dir()


def test_plain_objects_dataclasses_and_namespaces_are_taken(classroom: dict[str, Any]) -> None:
    @dataclasses.dataclass
    class Own:
        learning_rate: float = 3e-3
        epochs: int = 2
        cleverness: int = 3

    for given in (Own(), SimpleNamespace(lr=3e-3, epochs=2), argparse.Namespace(lr=3e-3, num_train_epochs=2)):
        train = Given.of(given).config.train
        assert (train.learning_rate, train.num_epochs) == (3e-3, 2)
    with pytest.raises(ConfigError, match="unknown key 'cleverness'"):
        Given.of(Own(cleverness=4))
    with pytest.raises(ConfigError, match="unknown key 'cleverness'"):
        Given.of(SimpleNamespace(cleverness=3))
    done = quick_visual_distill(**classroom, config=SimpleNamespace(num_train_epochs=2, learning_rate=3e-3))
    assert done.epochs == 2


@pytest.mark.parametrize(("beta", "kind"), [(0.0, "forward_kl"), (0.25, "jsd"), (1.0, "reverse_kl")])
def test_the_beta_of_trls_gkd_is_our_mixture(beta: float, kind: str, tmp_path: Path) -> None:
    gkd = SimpleNamespace(lmbda=0.5, beta=beta, temperature=0.9, max_new_tokens=128, seq_kd=False)
    distill = Given.of(gkd).config.distill
    assert (distill.alpha, distill.beta, distill.temperature, distill.loss_kind) == (1.0, 0.0, 1.0, kind)
    assert distill.mixture == (beta if kind == "jsd" else None)
    assert (distill.on_policy, distill.on_policy_temperature, distill.on_policy_tokens) == (0.5, 0.9, 128)


def test_epochs_and_device_of_a_lesson_config_hold_unless_the_call_names_others() -> None:
    given = Given.of(LessonConfig.from_dict({"num_epochs": 7, "device": "cpu"}))
    train = given.with_call(num_epochs=None, device=None).train
    assert (train.num_epochs, train.device) == (7, "cpu")
    assert given.with_call(num_epochs=2, device="cuda").train.num_epochs == 2
    assert Given.of(None).with_call(num_epochs=None, device=None).train.device == "cuda"


@pytest.mark.parametrize("given", [5, "x", object(), dict, print, [1]])
def test_what_holds_no_settings_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="settings are not a mapping"):
        Given.of(given)
