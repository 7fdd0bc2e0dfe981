"""Runs on packed rows: loss, cards, layers, the student's own text and a cached teacher are those of the rows apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
import transformers
from torch import Tensor, nn
from transformers import DataCollatorWithFlattening

from apt_model.config import LessonConfig
from apt_model.data.batch import to_batch
from apt_model.data.packing import pack_rows
from apt_model.data.rows import joined, plain_row, row_of, single_rows
from apt_model.distill.inputs import Data, Models, Watching
from apt_model.distill.loop import distill
from apt_model.distill.losses.readout import choose_row
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.errors import DataError
from apt_model.events.cards import Observation, Reading
from apt_model.events.records import Notice, RunStarted, StepDone
from apt_model.events.sinks import Audience
from tests.conftest import VOCABULARY, Listener

ROWS = [
    torch.randint(4, VOCABULARY, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (5, 9, 12, 7, 10, 4, 8, 11)
]
PACKED = [
    {"input_ids": ids, "labels": labels, "position_ids": positions or list(range(len(ids)))}
    for ids, labels, positions in pack_rows([{"input_ids": row} for row in ROWS], None, 24)
]
FLATTENED = DataCollatorWithFlattening()([{"input_ids": row} for row in ROWS])
ONE_STEP = {"num_epochs": 1, "temperature": 2.0, "alpha": 0.7, "learning_rate": 1e-3}


def run(listener: Listener, student: nn.Module, teacher: Any, train: Any, *, evaluate: Any = None, **more: Any) -> None:
    """One step on `train`; `more` are settings, or the tokenizer."""
    distill(
        Models(student=student, teacher=teacher, tokenizer=more.pop("tokenizer", None)),
        Data(train=[train], validation=evaluate and [evaluate]),
        config=LessonConfig.from_dict({**ONE_STEP, **more}),
        device=torch.device("cpu"),
        watching=Watching(audience=Audience([listener]), takes_readings=True),
    )


def written_out(student: nn.Module, teacher: nn.Module) -> tuple[float, float, float]:
    """KD, CE and the norm of the gradient of their weighted sum, in float64, of each row read alone."""
    student, teacher = student.double(), teacher.double()
    kd, ce, count = torch.zeros(()), torch.zeros(()), 0
    for row in ROWS:
        ids = torch.tensor([row])
        own, theirs = student(input_ids=ids).logits[0, :-1], teacher(input_ids=ids).logits[0, :-1].detach()
        q, p = (F.log_softmax(logits / 2, dim=-1) for logits in (own, theirs))
        kd = kd + 4 * (p.exp() * (p - q)).sum()
        ce = ce + F.cross_entropy(own, ids[0, 1:], reduction="sum")
        count += len(row) - 1
    kd, ce = kd / count, ce / count
    student.zero_grad()
    (0.7 * kd + 0.3 * ce).backward()
    norm = torch.stack([p.grad.norm() for p in student.parameters() if p.grad is not None]).norm()
    return kd.item(), ce.item(), norm.item()


def make_gpt2() -> Any:
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **still, bos_token_id=1, eos_token_id=2))


def make_bloom() -> Any:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "n_head": 2, "hidden_dropout": 0.0}
    return transformers.BloomForCausalLM(transformers.BloomConfig(**sizes))


def steep(model: nn.Module) -> nn.Module:
    """Weights that make tokens look at each other."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


class Headless(nn.Module):
    """A student of somebody's own that hides its head, and takes token ids alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor) -> Any:
        return self.inner(input_ids=input_ids)


STUDENTS: dict[str, Callable[[Any], Any]] = {
    "llama": lambda make: make(hidden=16, layers=2, seed=2),
    "llama eager": lambda make: make(hidden=16, layers=2, seed=2, attn_implementation="eager"),
    "gpt2": lambda make: make_gpt2(),
    "bloom": lambda make: make_bloom(),
    "own": lambda make: Headless(make(hidden=16, layers=2, seed=2)),
}


@pytest.mark.parametrize("data", ["packed", "flattened"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_a_step_on_packed_rows_is_that_on_the_rows_apart(
    kind: str, data: str, listener: Listener, teacher: nn.Module, make_model: Callable[..., Any]
) -> None:
    torch.manual_seed(4)
    student = steep(STUDENTS[kind](make_model))
    steep(teacher)
    batch = PACKED if data == "packed" else FLATTENED
    run(listener, student, teacher, batch, max_grad_norm=None)
    (step,) = listener.of(StepDone)
    torch.manual_seed(4)
    kd, ce, norm = written_out(steep(STUDENTS[kind](make_model)), teacher)
    assert (step.kd, step.ce, step.grad_norm) == pytest.approx((kd, ce, norm), rel=2e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_layers_are_compared_as_those_of_the_rows_apart(
    kind: str, listener: Listener, teacher: nn.Module, make_model: Callable[..., Any]
) -> None:
    found = []
    for rows in (PACKED, [{"input_ids": row} for row in ROWS]):
        torch.manual_seed(4)
        heard = Listener()
        matched = {"hidden_weight": 0.5, "attention_weight": 0.25}
        run(heard, steep(STUDENTS[kind](make_model)), teacher, rows, **matched, sample_frequency=1)
        (step,) = heard.of(StepDone)
        found.append((step.loss, step.hidden, step.attention, step.grad_norm))
        assert len(heard.of(Observation)) == 1
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_card_shows_one_text_of_a_packed_row(tokenizer: Any) -> None:
    batch = to_batch(PACKED)
    texts = [choose_row(batch, turn=turn, given_tokens=2) for turn in range(len(ROWS))]
    assert sorted(card.input_ids for card in texts if card is not None) == sorted(ROWS)
    for card in texts:
        assert card is not None
        assert card.given_ids == card.input_ids[: len(card.given_ids)]
        assert card.given_ids + card.original_ids == card.input_ids


def test_cards_and_readings_of_packed_rows_are_those_of_the_rows_apart(
    teacher: nn.Module, make_model: Callable[..., Any], tokenizer: Any
) -> None:
    heard = []
    for rows in (PACKED, [{"input_ids": row} for row in ROWS]):
        told = Listener()
        student = make_model(hidden=16, layers=1, seed=2)
        run(told, student, teacher, rows, tokenizer=tokenizer)
        heard.append(told)
    packed, apart = (listener.of(Reading)[0].rows for listener in heard)
    assert sorted(row.kl for row in packed) == pytest.approx(sorted(row.kl for row in apart), rel=1e-4)


def test_rows_of_their_own_come_back_from_json_with_their_positions() -> None:
    batch = to_batch({"input_ids": torch.tensor([[5, 6, 7, 8, 9]]), "position_ids": torch.tensor([[2, 3, 0, 1, 3]])})
    rows = single_rows(batch)
    assert [row.input_ids.tolist() for row in rows] == [[[5, 6]], [[7, 8, 9]]]
    again = joined([row_of(plain_row(row)) for row in rows])
    assert again.position_ids is not None
    assert again.position_ids.tolist() == [[2, 3, 0], [0, 1, 3]]
    plain = joined(single_rows(to_batch(PACKED)))
    assert plain.position_ids is None
    assert len(plain.input_ids) == len(ROWS)


def test_the_student_writes_after_the_beginning_of_each_packed_text(
    student: nn.Module, teacher: nn.Module, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[int]] = []
    draw = "apt_model.distill.on_policy.draw"
    monkeypatch.setattr(draw, lambda m, t, prompts, **how: given.extend(prompts) or [[5, 6] for _ in prompts])
    run(Listener(), student, teacher, PACKED, on_policy=1.0, tokenizer=tokenizer)
    assert sorted(given) == sorted(row[: min(8, len(row) // 2)] for row in ROWS)


# ---- cached teachers


def cache(teacher: Any, rows: Any, path: Path) -> CachedTeacher:
    how = {"k": VOCABULARY, "temperature": 2.0, "value_type": "float16", "max_length": 24}
    CacheWriter(teacher, rows, settings=CacheSettings(**how, packing=True)).run(path)
    return CachedTeacher(path)


@pytest.mark.parametrize("make", [None, make_bloom], ids=["llama", "bloom"])
def test_a_cache_of_packed_rows_says_what_the_live_teacher_does(
    make: Any, teacher: Any, make_model: Callable[..., Any], tmp_path: Path
) -> None:
    teacher = steep(teacher if make is None else make())
    heard = []
    for source in (teacher, cache(teacher, PACKED, tmp_path)):
        told = Listener()
        run(told, make_model(hidden=16, layers=1, seed=2), source, PACKED)
        heard.append(told.of(StepDone)[0])
    live, cached = heard
    assert (cached.kd, cached.ce, cached.grad_norm) == pytest.approx((live.kd, live.ce, live.grad_norm), rel=2e-3)


def test_a_cache_holds_texts_whatever_they_are_packed_with(teacher: Any, tmp_path: Path) -> None:
    made = cache(teacher, PACKED, tmp_path)
    assert made.identity.rows == len(ROWS)
    made.check(to_batch(list(reversed(PACKED))))
    joined_anew = {"input_ids": PACKED[1]["input_ids"], "position_ids": PACKED[1]["position_ids"]}
    made.check(to_batch([joined_anew]))


def test_a_cache_knows_no_row_whose_positions_are_others(teacher: Any, tmp_path: Path) -> None:
    made = cache(teacher, PACKED, tmp_path / "now")
    whole = {"input_ids": PACKED[0]["input_ids"], "labels": PACKED[0]["labels"]}  # as one text, its neighbours seen
    with pytest.raises(DataError, match="1 of 1 rows are not in cache"):
        made.check(to_batch([whole]))
    before = cache(teacher, [whole], tmp_path / "before")  # a block as one text, as it was cached once
    with pytest.raises(DataError, match="rows are not in cache"):
        before.check(to_batch(PACKED[:1]))
    moved = {"input_ids": ROWS[0], "position_ids": list(range(1, len(ROWS[0]) + 1))}
    with pytest.raises(DataError, match="1 of 1 rows are not in cache"):
        made.check(to_batch([moved]))


def test_in_a_run_each_kind_of_loss_is_told_once_after_the_run_has_begun(
    listener: Listener, student: nn.Module, teacher: nn.Module, tokenizer: Any
) -> None:
    raw = {"text": ["abcdefgh", "ab"], "weight": [1, 2]}
    run(listener, student, teacher, raw, tokenizer=tokenizer, max_length=6, evaluate=raw, num_epochs=2)
    notices = [(event.key, event.values) for event in listener.of(Notice)]
    assert [key for key, _ in notices if key in ("notice.keys_unused", "notice.row_cut")] == [
        "notice.keys_unused",
        "notice.row_cut",
    ]
    assert type(listener.events[0]) is RunStarted
