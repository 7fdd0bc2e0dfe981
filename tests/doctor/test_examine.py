"""The doctor finds what would spoil a lesson, lets pass what would not, and leaves no trace."""

import copy
import math
import random
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from apt_model.commands.recipes import find_recipe
from apt_model.config import LessonConfig
from apt_model.data.batch import to_batch
from apt_model.doctor.data_checks import unigram_cross_entropy
from apt_model.doctor.examine import examine
from apt_model.errors import DataError, ModelError, NumericError, OutOfMemoryError, StorageError
from apt_model.events.checkup import Finding
from apt_model.i18n import LANGUAGES, _read
from tests.conftest import VOCABULARY

CPU = torch.device("cpu")
TEXTS = ["the large network", "医疗教育", "ab", "the network, is large."]
Look = Callable[..., dict[str, Finding]]


@pytest.fixture
def look(teacher: Any, student: Any, make_batches: Any) -> Look:
    """Findings by key, of a lesson that is well but for what a test changes."""

    def run(settings: dict[str, Any] | None = None, **changes: Any) -> dict[str, Finding]:
        given = {"student": student, "teacher": teacher, "batches": make_batches(), "device": CPU} | changes
        found = examine(config=LessonConfig.from_dict(settings), **given)
        for lang in LANGUAGES:
            assert {f"doctor.{finding.key}" for finding in found} <= _read(lang).keys()
        return {finding.key: finding for finding in found}

    return run


def errors(found: dict[str, Finding]) -> list[Exception]:
    assert all((finding.error is not None) == (finding.state == "wrong") for finding in found.values())
    return [finding.error for finding in found.values() if finding.error is not None]


def test_a_lesson_that_is_well_has_nothing_wrong_and_its_own_kl_is_zero(look: Look, tmp_path: Path) -> None:
    found = look({"temperature": 1.0}, run_dir=tmp_path / "not" / "there" / "yet")
    assert errors(found) == []
    assert {"models", "masks", "vocabulary", "own_kl", "memory", "disk"} <= found.keys()
    assert float(str(found["own_kl"].values["kl"])) < 1e-4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl"])
def test_every_kind_of_loss_finds_a_student_equal_to_itself(kind: str, look: Look) -> None:
    assert look({"loss_kind": kind})["own_kl"].state == "well"


def test_the_doctor_leaves_no_trace(look: Look, teacher: Any, student: Any, make_batches: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    ids = torch.cat([batch["input_ids"] for batch in make_batches()])
    loader = DataLoader(ids, batch_size=2, shuffle=True, generator=generator)
    student.train()
    teacher.model.layers[0].train()

    def state() -> list[Any]:
        weights = [t.clone() for model in (teacher, student) for t in model.state_dict().values()]
        modes = [module.training for model in (teacher, student) for module in model.modules()]
        flags = [p.requires_grad for model in (teacher, student) for p in model.parameters()]
        gradients = [p.grad for model in (teacher, student) for p in model.parameters()]
        python, numpy = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
        return [weights, modes, flags, gradients, python, numpy, torch.get_rng_state(), generator.get_state()]

    moody = Moody()  # draws random numbers
    before = state()
    look(batches=loader)
    look(batches=loader, student=moody)
    after = state()
    assert all(torch.equal(one, other) for one, other in zip(before[0], after[0], strict=True))
    assert before[1:6] == after[1:6]
    assert torch.equal(before[6], after[6])
    assert torch.equal(before[7], after[7])
    assert torch.equal(torch.cat(list(loader)), torch.cat(list(_same(ids, 5))))


def _same(ids: torch.Tensor, seed: int) -> DataLoader[Any]:
    return DataLoader(ids, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(seed))


def test_data_that_can_be_read_only_once_is_left_for_the_lesson(look: Look, make_batches: Any) -> None:
    once = iter(make_batches(count=3))
    found = look(batches=once)
    assert found["not_looked"].state == "advice"
    assert len(list(once)) == 3


def test_another_tokenizer_is_wrong_and_the_ids_that_differ_are_named(look: Look, tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["新"])
    found = look(tokenizer=tokenizer, student_tokenizer=other, batches=[TEXTS])
    assert found["tokenizers_differ"].values["first"] == f"{len(tokenizer)}: None / '新'"
    assert [type(error) for error in errors(found)] == [DataError]
    assert "own_kl" not in found


def test_special_tokens_that_differ_are_told_and_pad_as_end_is_fine(look: Look, tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.pad_token = "</s>"
    found = look(tokenizer=other, student_tokenizer=tokenizer, batches=[TEXTS])
    assert found["special_differ"].values["differ"] == "pad 2 ≠ 0"
    assert (found["pad_is_eos"].state, found["pad_is_eos"].values["id"]) == ("well", 2)
    assert errors(found) == []


def test_chats_need_a_template(look: Look, tokenizer: Any, chatty: Any) -> None:
    chats = [[{"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}]}]]
    assert isinstance(look(batches=chats, tokenizer=tokenizer)["no_template"].error, DataError)
    assert errors(look(batches=chats, tokenizer=chatty)) == []


def test_masks_are_counted(look: Look) -> None:
    ids = torch.arange(4, 12).repeat(3, 1)
    labels = ids.clone()
    labels[0] = -100
    labels[1, :6] = -100
    mask = torch.ones_like(ids)
    mask[2, 4:] = 0
    labels[2, 4:] = -100
    found = look(batches=[{"input_ids": ids, "attention_mask": mask, "labels": labels}])
    assert found["masks"].values["learned"] == "5"  # 0 + 2 + 3
    assert found["masks"].values["padding"] == "17%"  # 4 of 24
    assert (found["masked_some"].values["masked"], found["masked_some"].values["rows"]) == ("1", "3")
    labels[:] = -100
    found = look(batches=[{"input_ids": ids, "labels": labels}])
    assert [type(error) for error in errors(found)] == [DataError]
    assert found["masked_all"].values["rows"] == "3"


def test_rows_that_max_length_cuts_are_counted(look: Look, tokenizer: Any) -> None:
    found = look({"max_length": 10}, batches=[TEXTS], tokenizer=tokenizer)
    assert found["lengths_cut"].values == {"rows": "4", "cut": "2", "longest": "24", "limit": "10"}
    assert "lengths" in look({"max_length": 24}, batches=[TEXTS], tokenizer=tokenizer)


def test_much_padding_is_told(look: Look, tokenizer: Any) -> None:
    assert "padding" in look(batches=[["ab", "ab", "ab", "the network, is large."]], tokenizer=tokenizer)
    assert "padding" not in look(batches=[["ab", "ab"]], tokenizer=tokenizer)


def test_padded_heads_are_fine_and_missing_ones_are_told(look: Look, make_model: Any, tokenizer: Any) -> None:
    padded = look(student=make_model(hidden=16, layers=1, vocabulary=VOCABULARY + 8), tokenizer=tokenizer)
    values = padded["vocabulary_padded"].values
    assert (values["teacher"], values["student"], values["shared"]) == (64, 72, 64)
    assert errors(padded) == []
    bigger = copy.deepcopy(tokenizer)
    bigger.add_tokens([f"[{index}]" for index in range(VOCABULARY)])
    assert look(tokenizer=bigger)["vocabulary_short"].state == "advice"


def test_ids_beyond_the_vocabulary_and_weights_that_are_shared_are_wrong(look: Look, teacher: Any) -> None:
    (error,) = errors(look(batches=[torch.tensor([[5, 6, VOCABULARY]])]))
    assert isinstance(error, DataError)
    assert "vocabulary" in str(error)
    (error,) = errors(look(student=teacher))
    assert isinstance(error, ModelError)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_teacher_whose_logits_are_no_numbers_is_wrong(bad: float, look: Look, teacher: Any) -> None:
    with torch.no_grad():
        teacher.lm_head.weight[3] = bad
    found = look()
    assert isinstance(found["not_numbers"].error, NumericError)
    assert found["not_numbers"].values["roles"] == "teacher"


class Moody(nn.Module):
    """A model that says something else each time, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.table(input_ids) + torch.randn(*input_ids.shape, VOCABULARY)


class Large(nn.Module):
    """A model that needs too much."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**60)


def test_a_model_too_large_for_the_machine_is_wrong(look: Look) -> None:
    (error,) = errors(look(student=Large()))
    assert isinstance(error, OutOfMemoryError)


def test_a_student_that_differs_from_itself_is_wrong(look: Look) -> None:
    found = look(student=Moody())
    assert isinstance(found["own_kl_off"].error, NumericError)


class Parrot(nn.Module):
    """A model that expects each token to come again: right about texts of one letter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(5.0 * torch.eye(VOCABULARY), freeze=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.table(input_ids)


def test_a_teacher_that_cannot_read_the_texts_is_told(look: Look) -> None:
    monotonous = [torch.full((2, 9), 7)]
    reads = look(teacher=Parrot(), batches=monotonous)["teacher_reads"]
    assert reads.values["ce"] == f"{math.log(1 + (VOCABULARY - 1) * math.exp(-5)):.2f}"
    lost = look(teacher=Parrot(), batches=[torch.arange(4, 20).reshape(2, 8)])["teacher_lost"]
    assert (lost.state, lost.values["guess"]) == ("advice", f"{math.log(VOCABULARY):.2f}")


def test_a_copy_of_the_teacher_has_nothing_to_learn(look: Look, teacher: Any) -> None:
    found = look(student=copy.deepcopy(teacher))
    assert found["nothing_to_learn"].state == "advice"
    assert "nothing_to_learn" not in look()


def test_a_text_that_counting_tokens_predicts_better_than_the_teacher_is_told(look: Look) -> None:
    monotonous = torch.full((4, 33), 7)
    monotonous[:, 16] = 8
    counts = {7: 4 * 31, 8: 4}  # of the labels: the first token of a row is given
    total = sum(counts.values())
    others = {token: count - 1 for token, count in counts.items()}  # each is predicted from all others
    expected = -sum(counts[token] * math.log(others[token] / (total - 1 + 2)) for token in counts) / total
    found = look(teacher=Parrot(), batches=[monotonous])
    assert found["teacher_unsuited"].state == "advice"
    assert found["teacher_unsuited"].values["unigram"] == f"{expected:.2f}"
    assert found["teacher_reads"].state == "well"
    varied = look(teacher=Parrot(), batches=[torch.arange(4, 20).repeat_interleave(8).reshape(4, 32)])
    assert "teacher_unsuited" not in varied
    assert "teacher_unsuited" not in look(batches=[torch.arange(4, 8).reshape(1, 4)]), "too few tokens to tell"


def test_few_tokens_say_little_of_their_frequencies() -> None:
    def said(*rows: list[int]) -> float | None:
        return unigram_cross_entropy([to_batch(torch.tensor([[0, *row]])) for row in rows], VOCABULARY)

    assert said([5]) is None
    new = math.log((1 + 1) / 1 * 63)  # one other was met, of one kind: half of the chance is for the 63 others
    assert said([5], [6]) == pytest.approx(new)
    assert said([5, 6], [7, 8, 9]) > math.log(5), "the entropy of their own frequencies"
    assert said([5, 5], [6, 5]) == pytest.approx((3 * math.log(5 / 2) + math.log(4 / 1 * 63)) / 4)
    generator = torch.Generator().manual_seed(0)
    chances = torch.tensor([0.5, 0.25, 0.125, 0.125])
    many = torch.multinomial(chances, 20_000, replacement=True, generator=generator).tolist()
    assert said(many) == pytest.approx(1.75 * math.log(2), abs=0.02)


class Encoder(nn.Module):
    """Logits that depend on the mean of all tokens, before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.table(input_ids) + self.table(input_ids).mean(dim=1, keepdim=True)


def test_a_model_that_sees_what_follows_is_wrong_whoever_it_is(look: Look) -> None:
    assert look()["causal"].state == "well"
    for role in ("teacher", "student"):
        (error,) = errors(look(**{role: Encoder()}))
        assert isinstance(error, ModelError)
        assert f"the {role} sees the tokens that it is to predict" in str(error)
    (error,) = errors(look(teacher=None, student=Encoder()))
    assert isinstance(error, ModelError)
    assert "causal" in look(teacher=None)


def test_a_teacher_with_another_tokenizer_is_asked_in_its_own_tokens(look: Look, tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["the network"])
    crossed = {"tokenizer": other, "student_tokenizer": tokenizer, "batches": [TEXTS]}
    settings = {"cross_tokenizer": "kl"}
    (error,) = errors(look(settings, teacher=Encoder(), **crossed))
    assert "the teacher sees" in str(error)
    found = look(settings, **crossed)
    assert errors(found) == []
    assert "causal" in found
    assert "own_kl" not in found


@pytest.mark.parametrize(("temperature", "told"), [(4.0, True), (8.0, True), (1.0, False), (2.0, False)])
def test_a_fresh_student_is_told_of_high_temperatures(temperature: float, told: bool, look: Look) -> None:
    found = look({"temperature": temperature})
    assert ("temperature_slow" in found) is told
    if told:
        assert found["temperature_slow"].values == {"temperature": temperature, "rate": "0.0001"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_recipe_that_a_fresh_student_is_offered_exists_and_has_the_values_told(lang: str) -> None:
    told, recipe = _read(lang)["doctor.temperature_slow"], find_recipe("fresh").settings
    assert "--recipe fresh" in told
    assert re.findall(r"\d+\.?\d*", str(told))[:2] == ["1", "0.003"]
    assert (recipe["temperature"], recipe["learning_rate"], recipe["hidden_weight"] > 0) == (1.0, 0.003, True)


@pytest.mark.parametrize(
    ("rate", "key"), [(1e-7, "learning_rate_low"), (0.1, "learning_rate_high"), (1e-4, None), (3e-3, None)]
)
def test_learning_rates_far_off_are_told(rate: float, key: str | None, look: Look) -> None:
    told = [name for name in look({"learning_rate": rate}) if name.startswith("learning_rate")]
    assert told == ([key] if key else [])


def test_a_student_that_would_not_know_where_to_stop_is_told(look: Look, student: Any, tokenizer: Any) -> None:
    assert "ends_differ" not in look(tokenizer=tokenizer)
    student.generation_config.eos_token_id = [7]
    found = look(tokenizer=tokenizer)
    assert (found["ends_differ"].values["model"], found["ends_differ"].values["tokenizer"]) == ("7", 2)


def test_more_tokens_than_a_model_was_made_for_are_told(look: Look) -> None:
    found = look(batches=[torch.randint(4, VOCABULARY, (2, 70))])
    assert found["positions"].values == {"longest": 70, "limit": 64}
    assert "positions" not in look()


@pytest.mark.parametrize(("free", "key"), [(10**12, "disk"), (150_000, "disk_short"), (10_000, "disk_full")])
def test_room_for_checkpoints_is_looked_for(
    free: int, key: str, look: Look, student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))
    weights = 4 * sum(p.numel() for p in student.parameters())
    assert 4 * weights < 150_000 < weights + 4 * 3 * weights  # what the middle case rests on
    found = look(run_dir=tmp_path)
    assert [name for name in found if name.startswith("disk")] == [key]
    assert [type(error) for error in errors(found)] == ([StorageError] if key == "disk_full" else [])


def test_too_little_memory_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apt_model.doctor.examine.memory_free", lambda device: 1000)
    assert look()["memory_short"].state == "advice"


def test_a_cached_teacher_is_not_asked(look: Look) -> None:
    found = look(teacher=None)
    assert {"teacher_cached", "masks"} <= found.keys()
    assert found.keys().isdisjoint({"own_kl", "vocabulary", "memory"})
