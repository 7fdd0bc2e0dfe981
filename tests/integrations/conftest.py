"""Trainers of the real libraries around tiny models."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import pytest
import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from apt_model.data.encode import encode

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 4
EVERY_TIME = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "learning_rate": 5e-3}


@pytest.fixture
def chatty(tokenizer: Any) -> Any:
    """The tokenizer with a chat template that puts the words one after the other."""
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return copied


@pytest.fixture
def rows(tokenizer: Any) -> list[dict[str, list[int]]]:
    return [{"input_ids": ids, "labels": ids} for ids in encode(LINES, tokenizer, 64)]


@pytest.fixture
def make_trainer(
    make_model: Callable[..., Any], tokenizer: Any, rows: list[dict[str, list[int]]], tmp_path: Path
) -> Callable[..., Trainer]:
    """A plain Trainer: 16 rows, 2 at a time, 2 batches a step, shuffled, with dropout; 4 steps an epoch."""

    def make(callbacks: list[Any] | None = None, model: Any = None, train_dataset: Any = None, **how: Any) -> Trainer:
        args = {"num_train_epochs": 2, "logging_steps": 1, "gradient_accumulation_steps": 2}
        more = {key: how.pop(key) for key in ("eval_dataset", "processing_class") if key in how}
        return Trainer(
            model if model is not None else make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1),
            TrainingArguments(str(tmp_path / "out"), per_device_train_batch_size=2, **{**EVERY_TIME, **args, **how}),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            train_dataset=rows if train_dataset is None else train_dataset,
            callbacks=callbacks,
            **{"processing_class": tokenizer, **more},
        )

    return make


@pytest.fixture(autouse=True)
def deterministic() -> None:
    torch.manual_seed(0)
