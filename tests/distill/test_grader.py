"""The fused path of the loop against the plain one, which writes every logit out."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from apt_model.events.cards import Observation
from apt_model.events.records import EpochFinished, Notice, StepDone
from apt_model.models.causality import TOKENS
from tests.conftest import VOCABULARY, Listener
from tests.distill.plain import write_everything_out
from tests.distill.test_loop import Plain, run


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Listener]:
    """A run in which no model shows its head."""

    def run_plainly(*arguments: Any, **settings: Any) -> Listener:
        heard = Listener()
        with monkeypatch.context() as patched:
            write_everything_out(patched)
            run(heard, *arguments, **settings)
        return heard

    return run_plainly


def same_course(one: Listener, other: Listener, *, rel: float) -> None:
    steps = list(zip(one.of(StepDone), other.of(StepDone), strict=True))
    assert steps
    for first, second in steps:
        assert (first.loss, first.kd, first.ce, first.grad_norm) == pytest.approx(
            (second.loss, second.kd, second.ce, second.grad_norm), rel=rel
        )


@pytest.mark.parametrize("tied", [False, True])
def test_twelve_steps_go_the_same_way_fused_and_written_out(
    listener: Listener,
    teacher: nn.Module,
    make_model: Callable[..., Any],
    make_batches: Callable[..., Any],
    plainly: Callable[..., Listener],
    tied: bool,
) -> None:
    student = make_model(hidden=16, layers=1, seed=2, tie_word_embeddings=tied)
    other, batches = copy.deepcopy(student), make_batches(count=8)
    settings = {"gradient_accumulation_steps": 2, "num_epochs": 3, "sample_frequency": 3}
    run(listener, student, teacher, batches, **settings)
    heard = plainly(other, teacher, batches, **settings)
    assert len(listener.of(StepDone)) == 12
    same_course(listener, heard, rel=1e-5)
    for one, two in zip(student.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    cards = list(zip(listener.of(Observation), heard.of(Observation), strict=True))
    assert len(cards) == 9
    for one, two in cards:
        assert (one.teacher_text, one.student_text, one.agreement) == (
            two.teacher_text,
            two.student_text,
            two.agreement,
        )
        assert one.normalised_kl == pytest.approx(two.normalised_kl, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_kind": "reverse_kl"},
        {"loss_kind": "jsd", "mixture": 0.3, "temperature": 2.0},
        {"loss_kind": "skew_kl"},
        {"loss_kind": "skew_reverse_kl", "temperature": 1.0},
        {"chunk_rows": 7},
        {"mixed_precision": "bf16"},
    ],
    ids=str,
)
def test_each_way_of_learning_is_the_same_fused_and_written_out(
    listener: Listener,
    student: nn.Module,
    teacher: nn.Module,
    make_batches: Callable[..., Any],
    plainly: Callable[..., Listener],
    settings: dict[str, Any],
) -> None:
    other = copy.deepcopy(student)
    run(listener, student, teacher, make_batches(), **settings)
    heard = plainly(other, teacher, make_batches(), **{k: v for k, v in settings.items() if k != "chunk_rows"})
    same_course(listener, heard, rel=2e-2 if "mixed_precision" in settings else 1e-5)


def test_a_bf16_head_is_near_and_not_the_same(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    other, heard = copy.deepcopy(student), Listener()
    run(listener, student, teacher, make_batches())
    run(heard, other, teacher, make_batches(), head_dtype="bf16")
    same_course(listener, heard, rel=1e-2)
    assert listener.of(StepDone)[0].loss != heard.of(StepDone)[0].loss


def test_activation_checkpointing_changes_nothing(
    listener: Listener, student: Any, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    other, heard, calls = copy.deepcopy(student), Listener(), []
    run(listener, student, teacher, make_batches())
    getattr(other, "activation_checkpointing_enable", other.gradient_checkpointing_enable)()  # since 5.24
    other.model.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    run(heard, other, teacher, make_batches())
    assert len(calls) > len(make_batches()) + 1, "the layer has to run a second time in each backward"
    assert [step.loss for step in listener.of(StepDone)] == [step.loss for step in heard.of(StepDone)]


def test_no_model_writes_out_its_logits(
    listener: Listener,
    student: Any,
    teacher: Any,
    make_batches: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[tuple[int, ...]] = []
    linear = nn.Linear.forward

    def watched(self: nn.Linear, given: torch.Tensor) -> torch.Tensor:
        out = linear(self, given)
        written.extend([tuple(out.shape)] if out.shape[-1] == VOCABULARY and self in heads else [])
        return out

    heads = (student.lm_head, teacher.lm_head)
    monkeypatch.setattr(nn.Linear, "forward", watched)
    run(listener, student, teacher, make_batches(), sample_frequency=1)
    assert len(listener.of(Observation)) == 4
    assert written == 4 * [(1, TOKENS, VOCABULARY)]  # both models, as they are tried for causality: two short rows each


def test_a_student_that_hides_its_head_is_told_of_once_and_a_teacher_that_does_costs_nothing_but_its_logits(
    listener: Listener,
    student: nn.Module,
    teacher: nn.Module,
    make_batches: Callable[..., Any],
    plainly: Callable[..., Listener],
) -> None:
    run(listener, Plain(lambda x: x), teacher, make_batches())
    assert [notice.key for notice in listener.of(Notice)] == ["notice.head_hidden"]

    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = teacher

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)

    heard, other = Listener(), copy.deepcopy(student)
    run(heard, student, Hiding(), make_batches())
    assert heard.of(Notice) == []
    same_course(heard, plainly(other, teacher, make_batches()), rel=1e-5)


def test_a_frozen_head_stays_and_the_rest_learns(
    listener: Listener, student: Any, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    before = student.lm_head.weight.detach().clone()
    student.lm_head.requires_grad_(False)
    run(listener, student, teacher, make_batches(), num_epochs=6)
    epochs = listener.of(EpochFinished)
    assert torch.equal(student.lm_head.weight, before)
    assert epochs[-1].mean_loss < epochs[0].mean_loss


def test_a_batch_without_labels_inside_a_step_adds_nothing(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    (batch,), other, heard = make_batches(count=1), copy.deepcopy(student), Listener()
    empty = {**batch, "labels": torch.full_like(batch["input_ids"], -100)}
    run(listener, student, teacher, [batch])
    run(heard, other, teacher, [empty, batch], gradient_accumulation_steps=2)
    same_course(listener, heard, rel=1e-6)
