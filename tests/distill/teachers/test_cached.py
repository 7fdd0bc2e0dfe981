"""A lesson with a cached teacher: the student learns what it would have learned, and the cards show what was said."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from apt_model.config import LessonConfig
from apt_model.data.batch import to_batch
from apt_model.distill.inputs import Data, Models, Watching
from apt_model.distill.loop import distill
from apt_model.distill.losses.fused import HeadInput, fused_distillation
from apt_model.distill.losses.objective import Objective
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.errors import ConfigError, DataError, ModelError, NumericError
from apt_model.events.cards import Observation
from apt_model.events.records import RunStarted, StepDone
from apt_model.events.sinks import Audience
from apt_model.models.output_head import find_head

ROWS = [
    {"input_ids": torch.randint(4, 64, (length,), generator=torch.Generator().manual_seed(length)).tolist()}
    for length in (5, 9, 12, 7, 10, 4, 8, 11)
]
LESSON: dict[str, Any] = {"temperature": 2.0, "alpha": 0.7, "learning_rate": 1e-3, "num_epochs": 2, "seed": 0}
Teach = Callable[..., list[Any]]


def cached(teacher: Any, path: Path, **change: Any) -> CachedTeacher:
    settings = {"k": 64, "temperature": 2.0, "value_type": "float16", "max_length": 32, "packing": False} | change
    CacheWriter(teacher, ROWS, settings=CacheSettings(**settings)).run(path)
    return CachedTeacher(path)


@pytest.fixture
def teach(listener: Any, tokenizer: Any) -> Teach:
    """Teach, and return what was told."""

    def run(
        student: Any, teacher: Any, *, rows: Any = ROWS, batch_size: int = 4, evaluate: Any = None, **more: Any
    ) -> Any:
        before = len(listener.events)
        distill(
            Models(student=student, teacher=teacher, tokenizer=tokenizer),
            Data(train=DataLoader(rows, batch_size=batch_size, shuffle=True, collate_fn=list), validation=evaluate),
            config=LessonConfig.from_dict({**LESSON, "sample_frequency": 1, **more}),
            device=torch.device("cpu"),
            watching=Watching(audience=Audience([listener])),
        )
        return listener.events[before:]

    return run


def of(kind: type, events: list[Any]) -> list[Any]:
    return [event for event in events if type(event) is kind]


def test_with_the_whole_vocabulary_the_lesson_is_the_live_teachers(
    teacher: Any, make_model: Any, tmp_path: Path, teach: Teach
) -> None:
    live = teach(make_model(hidden=16, layers=1, seed=2), teacher)
    from_cache = teach(make_model(hidden=16, layers=1, seed=2), cached(teacher, tmp_path))
    for one, other in zip(of(StepDone, live), of(StepDone, from_cache), strict=True):
        assert (one.kd, one.ce, one.grad_norm) == pytest.approx((other.kd, other.ce, other.grad_norm), rel=2e-3)
    for one, other in zip(of(Observation, live), of(Observation, from_cache), strict=True):
        assert one.teacher_text == other.teacher_text
        assert (one.normalised_kl, one.agreement) == pytest.approx((other.normalised_kl, other.agreement), abs=2e-3)
    assert of(RunStarted, live)[0].teacher == of(RunStarted, from_cache)[0].teacher


def test_with_fewer_tokens_the_texts_are_the_same_and_the_kl_is_less(
    teacher: Any, make_model: Any, tmp_path: Path, teach: Teach
) -> None:
    live = teach(make_model(hidden=16, layers=1, seed=2), teacher, max_steps=1)
    some = teach(make_model(hidden=16, layers=1, seed=2), cached(teacher, tmp_path, k=4), max_steps=1)
    assert of(StepDone, some)[0].ce == pytest.approx(of(StepDone, live)[0].ce, rel=1e-6)
    assert 0 < of(StepDone, some)[0].kd < of(StepDone, live)[0].kd
    (card,), (known) = of(Observation, live), of(Observation, some)[0]
    assert card.agreement == known.agreement
    assert known.normalised_kl <= card.normalised_kl + 1e-4


def test_neither_order_nor_batch_size_changes_what_is_looked_up(teacher: Any, tmp_path: Path) -> None:
    source = cached(teacher, tmp_path, k=6)
    shuffled = random.Random(3).sample(ROWS, len(ROWS))
    one_by_one = [source.top_rows(to_batch([row])) for row in shuffled]
    together = source.top_rows(to_batch(shuffled))
    for whole, parts in zip(together, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=0)


def test_validation_and_accumulation_work_from_the_cache_too(
    teacher: Any, make_model: Any, tmp_path: Path, teach: Teach
) -> None:
    how = {"evaluate": [ROWS[:3]], "gradient_accumulation_steps": 2}
    live = teach(make_model(hidden=16, layers=1, seed=2), teacher, **how)[-1].validation
    kept = teach(make_model(hidden=16, layers=1, seed=2), cached(teacher, tmp_path), **how)[-1].validation
    assert (live.loss, live.kd, live.agreement) == pytest.approx((kept.loss, kept.kd, kept.agreement), rel=2e-3)


def test_another_temperature_is_refused(teacher: Any, student: Any, tmp_path: Path, teach: Teach) -> None:
    with pytest.raises(DataError, match=r"temperature 2\.0 instead of 4\.0"):
        teach(student, cached(teacher, tmp_path), temperature=4.0)


def test_rows_that_were_not_cached_are_refused(teacher: Any, student: Any, tmp_path: Path, teach: Teach) -> None:
    source = cached(teacher, tmp_path)
    source.check_rows(ROWS)
    with pytest.raises(DataError, match="1 of 9 rows are not in cache"):
        source.check_rows([*ROWS, {"input_ids": [9, 9, 9]}])
    with pytest.raises(DataError, match="1 of 1 rows are not in cache"):
        teach(student, source, rows=[{"input_ids": [9, 9, 9]}])


def test_a_student_that_lacks_tokens_of_the_cache_is_refused(
    teacher: Any, make_model: Any, tmp_path: Path, teach: Teach
) -> None:
    narrow = make_model(hidden=16, layers=1)
    narrow.lm_head = torch.nn.Linear(16, 60, bias=False)
    with pytest.raises(ModelError, match="too narrow; got 60, expected 64 or more"):
        teach(narrow, cached(teacher, tmp_path))


def test_a_wider_student_is_cut_to_the_cached_vocabulary(
    teacher: Any, make_model: Any, tmp_path: Path, teach: Teach
) -> None:
    wide = make_model(hidden=16, layers=1, vocabulary=70)
    events = teach(wide, cached(teacher, tmp_path), max_steps=1)
    assert any(getattr(event, "key", "") == "notice.vocabulary_cut" for event in events)


@pytest.mark.parametrize("k", [3, 64])
def test_the_fused_pass_over_the_cache_equals_the_plain_one(
    k: int, teacher: Any, make_model: Any, tmp_path: Path
) -> None:
    student, batch, source = make_model(hidden=16, layers=1, seed=2), to_batch(ROWS), cached(teacher, tmp_path, k=k)
    logits = source.logits(batch)
    how = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    objective = Objective(temperature=2.0, alpha=0.7, beta=0.3)
    kd, ce = logits.sums(student(**how).logits, batch, objective)
    (0.7 * kd + 0.3 * ce).backward()
    plain = {name: p.grad.clone() for name, p in student.named_parameters()}
    student.zero_grad()
    head = find_head(student)
    assert head is not None
    with head.bypassed() as seen:
        student(**how)
    positions = logits.has_label.flatten().nonzero().flatten()
    signal = source.signal(batch, positions, temperature=2.0, columns=64, dtype=None)
    states = HeadInput(hidden=seen[0].flatten(0, 1)[positions], head=head)
    labels = batch.labels.flatten()[positions + 1]
    fused = fused_distillation(states, signal, labels, objective=objective, chunk_rows=16)
    fused.loss.backward()
    torch.testing.assert_close(torch.stack([fused.kd, fused.ce]), torch.stack([kd, ce]).detach(), rtol=1e-5, atol=1e-5)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-4, atol=1e-5)


def test_a_student_that_hides_its_head_learns_and_shows_the_same_from_the_cache(
    teacher: Any, make_model: Any, tmp_path: Path, teach: Teach
) -> None:
    class Hidden(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    source = cached(teacher, tmp_path, k=7)
    fused = teach(make_model(hidden=16, layers=1, seed=2), source)
    plain = teach(Hidden(make_model(hidden=16, layers=1, seed=2)), source)
    assert any(getattr(event, "key", "") == "notice.head_hidden" for event in plain)
    for one, other in zip(of(StepDone, fused), of(StepDone, plain), strict=True):
        assert (one.kd, one.ce, one.grad_norm) == pytest.approx((other.kd, other.ce, other.grad_norm), rel=1e-4)
    for one, other in zip(of(Observation, fused), of(Observation, plain), strict=True):
        assert (one.teacher_text, one.student_text) == (other.teacher_text, other.student_text)
        assert one.normalised_kl == pytest.approx(other.normalised_kl, rel=1e-4)


def test_a_loss_that_needs_the_whole_distribution_is_refused(
    teacher: Any, student: Any, tmp_path: Path, teach: Teach
) -> None:
    with pytest.raises(ConfigError, match=r"cannot serve this loss; got reverse_kl"):
        teach(student, cached(teacher, tmp_path), loss_kind="reverse_kl")


@pytest.mark.parametrize("key", ["hidden_weight", "attention_weight", "on_policy"])
def test_what_needs_the_teacher_itself_is_refused_and_it_is_said_why(
    key: str, teacher: Any, student: Any, tmp_path: Path, teach: Teach
) -> None:
    with pytest.raises(ConfigError, match=rf"a cache has the teacher's logits.*got {key}=0\.5. Fix: set {key}=0"):
        teach(student, cached(teacher, tmp_path), **{key: 0.5})


def test_a_step_that_is_not_finite_is_not_blamed_on_a_cached_teacher(
    teacher: Any, student: Any, tmp_path: Path, teach: Teach
) -> None:
    source = cached(teacher, tmp_path)
    with torch.no_grad():
        student.model.norm.weight[0] = torch.nan
    with pytest.raises(NumericError) as error:
        teach(student, source)
    assert "teacher" not in str(error.value)
