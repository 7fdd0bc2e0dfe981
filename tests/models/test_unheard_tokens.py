"""Tokens of a tokenizer that the head has no column for are refused before training, by id and name."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from apt_model.errors import ModelError
from apt_model.models.output_head import refuse_unheard, unheard_tokens
from apt_model.plugins.distillation_plugin import DistillationPlugin


@pytest.fixture
def larger(tokenizer: Any) -> Any:
    return copy.deepcopy(tokenizer)


def fitting(make_model: Callable[..., Any], tokenizer: Any) -> Any:
    return make_model(vocabulary=len(tokenizer))


def test_an_added_token_for_padding_is_refused_by_id_and_name(larger: Any, make_model: Any) -> None:
    student, count = fitting(make_model, larger), len(larger)
    larger.add_special_tokens({"pad_token": "<fill>"})
    with pytest.raises(ModelError, match=rf"the student's head; got '<fill>', id {count}, and {count} columns"):
        refuse_unheard(student, larger, "student")
    student.resize_token_embeddings(len(larger))
    refuse_unheard(student, larger, "student")


def test_a_turn_of_a_chat_template_is_refused_and_a_token_that_nobody_writes_is_not(
    larger: Any, make_model: Any
) -> None:
    student, count = fitting(make_model, larger), len(larger)
    larger.add_tokens(["<image>", "<turn>"], special_tokens=True)
    assert unheard_tokens(student, larger) == {count: "<image>", count + 1: "<turn>"}
    refuse_unheard(student, larger, "student")
    larger.chat_template = "{{ '<turn>' + messages[0]['content'] }}"
    with pytest.raises(ModelError, match=rf"got '<turn>', id {count + 1}"):
        refuse_unheard(student, larger, "student")


@pytest.mark.parametrize("short", ["student", "teacher"])
def test_a_run_is_refused_before_its_first_step(short: str, larger: Any, make_model: Any, listener: Any) -> None:
    count = len(larger)
    larger.add_special_tokens({"eos_token": "<end>"})
    models = {role: make_model(vocabulary=count + (role != short), seed=len(role)) for role in ("student", "teacher")}
    rows = [["a text that has no such token"]]
    with pytest.raises(ModelError, match=f"the {short}'s head; got '<end>'"):
        DistillationPlugin({"seed": 0}).distill_model(
            models["student"], models["teacher"], rows, tokenizer=larger, device="cpu", sinks=[listener]
        )
    assert listener.events == []
