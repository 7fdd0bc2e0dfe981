"""The loop refuses models that see what follows before anything is learned, and its trial leaves no trace."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from apt_model.config import LessonConfig
from apt_model.distill.checks import CausalityCheck
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.errors import ModelError
from apt_model.events.records import StepDone
from apt_model.plugins.distillation_plugin import DistillationPlugin
from tests.conftest import VOCABULARY, Listener

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 4


def encoder(vocabulary: int = VOCABULARY) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(vocab_size=vocabulary, max_position_embeddings=64, pad_token_id=0, **sizes))


def train(student: Any, teacher: Any, batches: Any, listener: Listener, **more: Any) -> None:
    DistillationPlugin(LessonConfig()).distill_model(student, teacher, batches, device="cpu", sinks=[listener], **more)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_the_loop_refuses_an_encoder_before_the_first_step(
    role: str, listener: Listener, teacher: Any, student: Any, make_batches: Any
) -> None:
    models = {"teacher": teacher, "student": student, role: encoder()}
    before = copy.deepcopy(models["student"].state_dict())
    with pytest.raises(ModelError, match=f"the {role} sees the tokens that it is to predict; got logits") as caught:
        train(models["student"], models["teacher"], make_batches(), listener)
    assert caught.value.exit_code == 3
    assert listener.of(StepDone) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in models["student"].state_dict().items())


def test_an_encoder_with_another_tokenizer_is_asked_in_its_own_tokens(
    listener: Listener, student: Any, tokenizer: Any
) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["the network"])
    plugin = DistillationPlugin({"cross_tokenizer": "kl"})
    with pytest.raises(ModelError, match="the teacher sees"):
        plugin.distill_model(
            student,
            encoder(len(other)),
            [LINES[:4]],
            tokenizer=tokenizer,
            teacher_tokenizer=other,
            device="cpu",
            sinks=[listener],
        )


def test_batches_with_nothing_to_try_it_on_are_waited_for(listener: Listener, student: Any, make_batches: Any) -> None:
    one_token = torch.tensor([[5]])
    with pytest.raises(ModelError, match="the teacher sees"):
        train(student, encoder(), [one_token, *make_batches()], listener)
    assert listener.of(StepDone) == []


def test_an_encoder_is_not_cached(tokenizer: Any) -> None:
    rows = [{"text": line} for line in LINES]
    settings = CacheSettings(k=8, temperature=1.0, value_type="log8", max_length=64, packing=False)
    with pytest.raises(ModelError, match="the teacher sees"):
        CacheWriter(encoder(), rows, tokenizer=tokenizer, settings=settings)


def test_trying_the_models_leaves_the_same_student_optimizer_and_generators(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With dropout, and a shuffled loader."""

    def lesson() -> list[Any]:
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        student = make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1)
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
        loader = torch.utils.data.DataLoader(LINES, batch_size=2, shuffle=True, collate_fn=list)  # type: ignore[arg-type]
        train(student, copy.deepcopy(teacher), loader, Listener(), optimizer=optimizer, tokenizer=tokenizer)
        moments = [torch.as_tensor(v) for state in optimizer.state.values() for v in state.values()]
        tensors = [tensor.numpy().tobytes() for tensor in (*student.state_dict().values(), *moments)]
        return [tensors, random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[union-attr]

    tried = lesson()
    monkeypatch.setattr(CausalityCheck, "check", lambda self, window, step: None)
    assert lesson() == tried
