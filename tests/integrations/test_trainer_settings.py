"""Which settings the callback reads: each that it takes shows, and each other one is refused."""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainingArguments

from apt_model.config import LessonConfig, settings
from apt_model.errors import ConfigError
from apt_model.events.records import RunStarted
from apt_model.events.runfile import read_events
from apt_model.integrations import VisualDistillationCallback
from apt_model.integrations.trainer_settings import READ, names_a_teacher

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
UNREAD = [key for _, key, _ in settings() if key not in READ]
OTHER_VALUES = {
    "card_text": "predicted",  # of each key that is not read: one that is not its default
    "loss_kind": "jsd",
    "layer_map": "even",
    "cross_tokenizer": "kl",
    "lr_scheduler_type": "linear",
    "mixed_precision": "bf16",
    "head_dtype": "bf16",
    "wide_matmul": "off",
    "merge_adapters": True,
    "on_nonfinite": "skip",
    "device": "cpu",
    "teacher_device": "cpu",
    "show_on": "validation",
    "exam_prompts": ("从前",),
    "report_to": ("wandb",),
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 1.0),
        ("alpha", 0.1),
        ("beta", 0.9),
        ("max_length", 6),
        ("show_samples", False),
        ("show_diff", True),
        ("sample_frequency", 2),
        ("max_text_length", 3),
        ("given_tokens", 1),
        ("excellent", (1.0, 99.0)),
        ("good", (1.0, 99.0)),
        ("fair", (1.0, 99.0)),
        ("lang", "en"),
    ],
)
def test_a_setting_that_is_taken_changes_what_is_shown(
    key: str, value: Any, make_trainer: Callable[..., Trainer], teacher: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(**config: Any) -> list[str]:
        callback = VisualDistillationCallback(teacher, config={"sample_frequency": 1, **config})
        make_trainer([callback], max_steps=2).train()
        return [line for line in capsys.readouterr().out.splitlines() if "⌛" not in line and "🔧" not in line]

    assert shown(**{key: value}) != shown()


def test_the_dashboard_opens(teacher: Any, make_trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    where = "apt_model.plugins.viewer.Viewer"
    monkeypatch.setattr(where, lambda directory, lang, asks: opened.append((directory, lang, asks)))
    config = {"dashboard": True}
    make_trainer([VisualDistillationCallback(teacher, config=config, run_dir=tmp_path / "run", sinks=[])]).train()
    assert opened == [(tmp_path / "run", "zh", False)]


def test_every_setting_that_is_taken_has_a_test_above() -> None:
    (cases,) = (mark for mark in test_a_setting_that_is_taken_changes_what_is_shown.pytestmark)  # type: ignore[attr-defined]
    assert {key for key, _ in cases.args[1]} | {
        "dashboard",
        "reading_frequency",
    } == READ  # of readings, and tested with them


@pytest.mark.parametrize("key", UNREAD)
def test_a_setting_that_is_not_read_is_refused_by_name(key: str, teacher: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} cannot be in config\. Fix: \w") as refused:
        VisualDistillationCallback(teacher, config={key: LessonConfig().to_dict()[key]})
    assert "\n" not in str(refused.value)
    (section,) = (section for section, one, _ in settings() if one == key)
    whole = LessonConfig()
    usual = whole.to_dict()[key]
    other = OTHER_VALUES[key] if key in OTHER_VALUES else (usual or 0) + 1
    changed = getattr(whole, section).model_copy(update={key: other})
    with pytest.raises(ConfigError, match=rf"^{key} cannot be in config\. Fix: \w"):
        VisualDistillationCallback(teacher, config=whole.model_copy(update={section: changed}))


def test_several_are_refused_in_one_line_that_says_what_to_do_about_each(teacher: Any) -> None:
    given = {"loss_kind": "jsd", "learning_rate": 1e-3, "exam_frequency": 5, "mixture": 0.3, "report_to": "wandb"}
    with pytest.raises(ConfigError) as refused:
        VisualDistillationCallback(teacher, config={**given, "temperature": 2.0})
    assert str(refused.value) == (
        "loss_kind, learning_rate, exam_frequency, mixture, report_to cannot be in config. "
        "Fix: loss_kind, mixture: set beta of TRL's GKDConfig or DistillationConfig; "
        "learning_rate, report_to: set it in the trainer's own arguments; "
        "exam_frequency: leave it out: only visual_distill_model acts on it."
    )


def test_a_lesson_of_defaults_is_taken_and_only_what_is_read_is_recorded(
    teacher: Any, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    lesson = LessonConfig.from_dict({"preset": "teaching", "temperature": 2.0})
    make_trainer([VisualDistillationCallback(teacher, config=lesson, run_dir=tmp_path / "run", sinks=[])]).train()
    (started,) = (event for event in read_events(tmp_path / "run") if isinstance(event, RunStarted))
    assert started.config.keys() == READ
    assert started.config["temperature"] == 2.0


def trainers_of_trl() -> list[tuple[type[Trainer], type[TrainingArguments]]]:
    """Every trainer of the installed TRL with its settings, but those that need more than is installed."""
    import trl
    from trl import experimental

    names = [name for name in trl._import_structure["trainer"] if name.endswith("Trainer")]
    found = [(getattr(trl, name), getattr(trl, name.replace("Trainer", "Config"))) for name in names]
    for folder in sorted(Path(experimental.__file__).parent.iterdir()):
        if not (folder / f"{folder.name}_trainer.py").exists():
            continue
        try:
            module = __import__(f"trl.experimental.{folder.name}", fromlist=["*"])
            trainers = [getattr(module, name) for name in dir(module) if name.endswith("Trainer")]
        except ImportError:
            continue
        found += [(one, getattr(module, one.__name__.replace("Trainer", "Config"))) for one in trainers]
    return found


def test_exactly_the_trainers_of_trl_that_take_a_teacher_name_one() -> None:
    found = trainers_of_trl()
    takes = {trainer.__name__ for trainer, _ in found if "teacher_model" in inspect.signature(trainer).parameters}
    names = {trainer.__name__ for trainer, config in found if names_a_teacher(config)}
    assert {"GKDTrainer", "DistillationTrainer", "GOLDTrainer"} <= takes
    assert {"SFTTrainer", "DPOTrainer", "GRPOTrainer"}.isdisjoint(names)
    assert len(found) > 12
    assert names - takes == {"ServerDistillationTrainer", "AsyncDistillationTrainer"}, "their teacher is on a server"
    assert takes <= names


def test_another_name_of_a_setting_that_is_not_read_is_refused_too(teacher: Any) -> None:
    with pytest.raises(ConfigError, match=r"^learning_rate cannot be in config"):
        VisualDistillationCallback(teacher, config={"lr": 1e-3})
    with pytest.raises(ConfigError, match="settings are not a mapping"):
        VisualDistillationCallback(teacher, config=argparse.Namespace(lr=1e-3))
