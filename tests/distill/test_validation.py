"""The student on data it does not learn from: measured exactly, and without a trace in the training."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from apt_model.distill.teachers.live import LiveTeacher
from apt_model.errors import ConfigError, DataError, NumericError
from apt_model.events.cards import ScoredObservation
from apt_model.events.records import EpochFinished, RunFinished
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.conftest import Listener

TEXTS = ["人工智能是全球最大的", "医疗教育", "the network, is large.", "经济文化体", "互联网"]


def lesson(student: Any, teacher: Any, batches: Any, tokenizer: Any, listener: Listener, **more: Any) -> None:
    config = {"learning_rate": 0.01, "seed": 0} | more.pop("config", {})
    VisualDistillationPlugin(config).visual_distill_model(
        student, teacher, batches, tokenizer=tokenizer, num_epochs=2, device="cpu", sinks=[listener], **more
    )


def written_out(student: Any, teacher: Any, batches: list[Any], temperature: float) -> tuple[float, float, float, int]:
    """KD, CE and agreement in float64, position by position."""
    kd = ce = agreed = tokens = 0.0
    for batch in batches:
        own, theirs = (
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double()
            for model in (student, teacher)
        )
        for row in range(len(own)):
            for at in range(int(batch["attention_mask"][row].sum()) - 1):
                s, t = own[row, at], theirs[row, at]
                p, q = torch.softmax(t / temperature, 0), torch.softmax(s / temperature, 0)
                kd += float(temperature**2 * (p * (p.log() - q.log())).sum())
                ce -= float(torch.log_softmax(s, 0)[batch["input_ids"][row, at + 1]])
                agreed += float(s.argmax() == t.argmax())
                tokens += 1
    return kd / tokens, ce / tokens, agreed / tokens, int(tokens)


@torch.no_grad()
def test_validation_equals_the_mean_written_out_in_float64(
    student: Any, teacher: Any, make_batches: Callable[..., list[Any]], listener: Listener
) -> None:
    looked_at = make_batches(count=3, seed=11)
    with torch.enable_grad():
        lesson(student, teacher, make_batches(), None, listener, eval_dataloader=looked_at)
    kd, ce, agreement, tokens = written_out(student, teacher, looked_at, temperature=4.0)
    measured = listener.of(EpochFinished)[-1].validation
    assert measured.kd == pytest.approx(kd, rel=1e-5)
    assert measured.ce == pytest.approx(ce, rel=1e-5)
    assert measured.loss == pytest.approx(0.7 * kd + 0.3 * ce, rel=1e-5)
    assert (measured.agreement, measured.tokens) == (pytest.approx(agreement), tokens)


def test_validation_has_a_laziness_that_is_that_of_its_texts(
    student: Any, teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    lesson(student, teacher, [TEXTS], tokenizer, listener, eval_dataloader=[[text] for text in TEXTS])
    measured = listener.of(EpochFinished)[0].validation
    assert len(measured.pairs) == 5
    by_hand = [
        0.6 * float(pair.teacher_text != pair.student_text) + 0.4 * pair.normalised_kl for pair in measured.pairs
    ]
    assert 0 < measured.mean_laziness <= sum(by_hand) / 5
    ended = listener.of(RunFinished)[0].validation
    assert (ended.pairs, ended.mean_laziness) == ((), listener.of(EpochFinished)[-1].validation.mean_laziness)


def test_looking_at_validation_data_leaves_the_same_student(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    students, states = [], []
    for more in (
        {},
        {"eval_dataloader": DataLoader(TEXTS, batch_size=2, shuffle=True), "config": {"show_on": "validation"}},
    ):  # type: ignore[var-annotated, arg-type]
        student = make_model(hidden=16, layers=1, seed=2, attention_dropout=0.3)
        data = DataLoader(TEXTS, batch_size=1, shuffle=True)  # type: ignore[arg-type]
        more = {**more, "config": {"sample_frequency": 1, "seed": 0} | more.get("config", {})}
        lesson(student, teacher, data, tokenizer, listener, **more)
        students.append(student.state_dict())
        states.append(torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(students[0].values(), students[1].values(), strict=True))
    assert torch.equal(*states)


def test_cards_on_validation_show_its_rows_with_its_own_loss(
    student: Any, teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    data = [["医疗教育"], ["经济文化体"], ["互联网"]]
    shown = {"show_on": "validation", "sample_frequency": 1, "given_tokens": 0}
    lesson(student, teacher, data, tokenizer, listener, eval_dataloader=[["the large"], ["is"]], config=shown)
    cards = listener.of(ScoredObservation)
    assert [card.input_text for card in cards] == ["the large", "is"] * 3
    assert {card.source for card in cards} == {"validation"}
    losses = {step.loss for step in listener.events if step.kind == "step"}
    assert not losses & {card.loss for card in cards}


def test_the_standard_plugin_measures_validation_too(
    student: Any, teacher: Any, make_batches: Any, capsys: Any
) -> None:
    verdict = DistillationPlugin({"lang": "en"}).distill_model(
        student, teacher, make_batches(), num_epochs=1, device="cpu", eval_dataloader=make_batches(count=1, seed=5)
    )
    assert verdict.validation is not None
    assert f"validation loss {verdict.validation.loss:.4f}" in capsys.readouterr().out


def test_what_cannot_be_looked_at_is_said_before_the_first_step(
    student: Any, teacher: Any, tokenizer: Any, make_batches: Any, listener: Listener
) -> None:
    def once() -> Iterator[list[str]]:
        yield TEXTS

    train = make_batches()
    with pytest.raises(ConfigError, match="there is no validation data"):
        lesson(student, teacher, train, tokenizer, listener, config={"show_on": "validation"})
    with pytest.raises(DataError, match=r"read only once; got generator"):
        lesson(student, teacher, train, tokenizer, listener, eval_dataloader=once())
    with pytest.raises(DataError, match="no token of the validation data has a label"):
        lesson(student, teacher, train, tokenizer, listener, eval_dataloader=[[""]])
    with pytest.raises(DataError, match="outside the student's vocabulary"):
        lesson(student, teacher, train, tokenizer, listener, eval_dataloader=[torch.full((1, 3), 99)])
    assert not listener.events


def test_a_teacher_that_is_nan_on_validation_data_ends_the_run(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    train = [{"input_ids": batch["input_ids"].clamp(max=60)} for batch in make_batches()]
    with torch.no_grad():
        teacher.model.embed_tokens.weight[63] = float("nan")
    with pytest.raises(NumericError, match="the loss on the validation data is not finite"):
        lesson(student, teacher, train, None, listener, eval_dataloader=[torch.tensor([[5, 63, 7]])])


class PlainTensors(LiveTeacher):
    """A source of somebody else's, that knows nothing of our records of logits."""

    def logits(self, batch: Any) -> Any:
        return super().logits(batch).logits


def test_a_source_may_return_its_logits_as_a_plain_tensor(
    student: Any, teacher: Any, make_batches: Callable[..., list[Any]], listener: Listener
) -> None:
    source = PlainTensors(teacher, torch.device("cpu"))
    again, looked_at = copy.deepcopy(student), make_batches(count=2, seed=11)
    lesson(student, teacher, make_batches(), None, listener, eval_dataloader=looked_at)
    lesson(again, source, make_batches(), None, listener, eval_dataloader=looked_at)
    *_, live, own = (event.validation for event in listener.of(RunFinished))
    assert own == live
