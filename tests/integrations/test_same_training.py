"""A trainer with the lesson leaves what one without it leaves: weights, optimizer, generators, to the last byte."""

import copy
import io
import random
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from apt_model.integrations import VisualDistillationCallback
from tests.integrations.conftest import EVERY_TIME, LINES

pytestmark = [
    pytest.mark.filterwarnings("ignore:`[a-z_]*gradient_checkpointing[a-z_]*` is deprecated:FutureWarning"),
]
MakeTrainer = Callable[[list[Any]], Trainer]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps, after every step and at the end, everything that training depends on, as bytes."""

    def __init__(self) -> None:
        self.states: list[tuple[Any, ...]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **trainer: Any) -> None:
        weights = tuple(p.detach().numpy().tobytes() for p in trainer["model"].state_dict().values())
        moments = trainer["optimizer"].state_dict()["state"]
        adam = tuple(torch.as_tensor(v).numpy().tobytes() for kept in moments.values() for v in kept.values())
        rng = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())
        modes = tuple(module.training for module in trainer["model"].modules())
        self.states.append((state.global_step, weights, adam, rng, modes))

    on_train_end = on_step_end


def train(make: MakeTrainer, *lesson: Any) -> list[tuple[Any, ...]]:
    watch = Watch()
    random.seed(7)
    np.random.seed(7)
    with redirect_stdout(io.StringIO()):
        trainer = make([*lesson, watch])
        trainer.train()
    return watch.states


def assert_the_lesson_changes_nothing(
    make: MakeTrainer, teacher: Any, tokenizer: Any, tmp_path: Path, *, steps: int
) -> None:
    kept = copy.deepcopy(teacher.state_dict())
    lesson = VisualDistillationCallback(teacher, tokenizer, {"sample_frequency": 1}, run_dir=tmp_path / "run")
    plain = train(make)
    assert train(make, lesson) == plain
    assert lesson.stats["total_samples"] == steps + 1
    assert len(plain) == steps + 1
    assert len({state[1] for state in plain}) == steps, "the student has to change at every step"
    assert len({state[3][2] for state in plain}) > 1, "dropout, shuffling or sampling has to draw numbers"
    assert all(torch.equal(kept[name], now) for name, now in teacher.state_dict().items())


def test_with_a_plain_trainer(
    make_trainer: Callable[..., Trainer], teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    def make(callbacks: list[Any]) -> Trainer:
        return make_trainer(callbacks, num_train_epochs=2.5, eval_strategy="steps", eval_steps=3, eval_dataset=rows)

    rows = [{"input_ids": [1, 5, 6, 7], "labels": [1, 5, 6, 7]}] * 3
    assert_the_lesson_changes_nothing(make, teacher, tokenizer, tmp_path, steps=10)


def test_with_rows_remarks_and_models_that_draw_numbers(
    make_trainer: Callable[..., Trainer], teacher: Any, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noisy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> Any:
            ids = [
                id if random.random() + torch.rand(1).item() + np.random.rand() > 1 else 3
                for id in rows[index]["labels"]
            ]
            return {"input_ids": ids, "labels": rows[index]["labels"]}

    def wild(self: Any, laziness_percent: float, loss: float) -> str:
        return str(random.random() + torch.rand(1).item() + np.random.rand())

    monkeypatch.setattr(VisualDistillationCallback, "generate_comment", wild)
    teacher.register_forward_pre_hook(lambda *a: torch.rand(1) and None)

    def make(callbacks: list[Any]) -> Trainer:
        return make_trainer(callbacks, train_dataset=Noisy())

    lesson = VisualDistillationCallback(teacher, config={"sample_frequency": 1})
    assert train(make, lesson) == train(make)
    assert lesson.stats["total_samples"] == 9


def test_with_the_sft_trainer(make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    def make(callbacks: list[Any]) -> Trainer:
        more = {"num_train_epochs": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
        return SFTTrainer(
            make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1),
            args=SFTConfig(str(tmp_path / "out"), bf16=False, logging_steps=2, **EVERY_TIME, **more),
            train_dataset=Dataset.from_dict({"text": LINES}),
            processing_class=copy.deepcopy(tokenizer),
            callbacks=callbacks,
        )

    assert_the_lesson_changes_nothing(make, teacher, tokenizer, tmp_path, steps=8)


def test_with_the_gkd_trainer(
    make_model: Callable[..., Any], teacher: Any, chatty: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """On-policy half of the time: python's generator chooses, torch's samples."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    chats = [[{"role": "user", "content": text[:2]}, {"role": "assistant", "content": text[2:]}] for text in LINES]

    def make(callbacks: list[Any]) -> Trainer:
        more = {"max_steps": 4, "per_device_train_batch_size": 4, "max_new_tokens": 6, "lmbda": 0.5}
        return GKDTrainer(
            make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1),
            teacher_model=teacher,
            args=GKDConfig(str(tmp_path / "out"), bf16=False, disable_dropout=False, **EVERY_TIME, **more),
            train_dataset=Dataset.from_dict({"messages": chats}),
            processing_class=copy.deepcopy(chatty),
            callbacks=callbacks,
        )

    assert_the_lesson_changes_nothing(make, teacher, tokenizer, tmp_path, steps=4)


def test_with_the_distillation_trainer(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """What TRL made of GKD: on-policy, from prompts alone."""
    from trl import DistillationConfig, DistillationTrainer

    def make(callbacks: list[Any]) -> Trainer:
        more = {"max_steps": 3, "per_device_train_batch_size": 2, "max_completion_length": 6}
        return DistillationTrainer(
            make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1),
            teacher_model=teacher,
            args=DistillationConfig(
                str(tmp_path / "out"), bf16=False, gradient_accumulation_steps=2, **EVERY_TIME, **more
            ),
            train_dataset=Dataset.from_dict({"prompt": [line[:3] for line in LINES]}),
            processing_class=copy.deepcopy(tokenizer),
            callbacks=callbacks,
        )

    assert_the_lesson_changes_nothing(make, teacher, tokenizer, tmp_path, steps=3)


def test_with_the_dpo_trainer(make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    pairs = {"prompt": [t[:2] for t in LINES], "chosen": [t[2:] for t in LINES], "rejected": [t[:1] for t in LINES]}

    def make(callbacks: list[Any]) -> Trainer:
        more = {"max_steps": 3, "per_device_train_batch_size": 2}
        return DPOTrainer(
            make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1),
            ref_model=make_model(hidden=16, layers=1, seed=7),
            args=DPOConfig(str(tmp_path / "out"), bf16=False, disable_dropout=False, **EVERY_TIME, **more),
            train_dataset=Dataset.from_dict(pairs),
            processing_class=copy.deepcopy(tokenizer),
            callbacks=callbacks,
        )

    assert_the_lesson_changes_nothing(make, teacher, tokenizer, tmp_path, steps=3)
