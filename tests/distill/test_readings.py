"""Readings of fixed rows: the right numbers, at the right times, on the same rows, without a trace in the training."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler

from apt_model.data.batch import to_batch
from apt_model.data.rows import evenly_spaced, is_read_by_index, joined, plain_row, row_of, single_rows
from apt_model.data.teachers_rows import TeachersRows
from apt_model.distill.fixed_rows import MOST_ROWS, RowReader
from apt_model.distill.losses.cross_vocabulary import Beginnings, CrossedLogits
from apt_model.distill.losses.logit_blocks import TopRows
from apt_model.distill.losses.teacher_logits import DenseLogits
from apt_model.distill.losses.topk_logits import SparseLogits
from apt_model.distill.readings import steps_between
from apt_model.errors import NumericError
from apt_model.events.cards import Reading
from apt_model.events.records import EpochFinished, EpochStarted, Notice, RunFinished, StepDone
from apt_model.events.runfile import EVENTS, read_events
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.conftest import Listener

TEXTS = ["人工智能是全球最大的", "医疗教育", "the network, is large.", "经济文化体", "互联网"]
MEASURES = ("kl", "normalised_kl", "agreement", "ce", "teacher_ce", "echo")


def lesson(student: Any, teacher: Any, batches: Any, tokenizer: Any, listener: Listener, **more: Any) -> Any:
    config = {"learning_rate": 0.01, "seed": 0, "exam_prompts": ()} | more.pop("config", {})
    return VisualDistillationPlugin(config).visual_distill_model(
        student,
        teacher,
        batches,
        tokenizer=tokenizer,
        num_epochs=more.pop("num_epochs", 2),
        device="cpu",
        sinks=[listener],
        **more,
    )


@torch.no_grad()
def written_out(student: Any, teacher: Any, row: list[int], labels: list[int] | None = None) -> dict[str, float]:
    """The numbers of one row in float64, position by position."""
    own, theirs = (model(input_ids=torch.tensor([row])).logits[0].double() for model in (student, teacher))
    found = []
    for at, label in enumerate((labels or row)[1:]):
        if label == -100:
            continue
        p, q = torch.softmax(theirs[at], 0), torch.softmax(own[at], 0)
        kl = float((p * (p.log() - q.log())).sum())
        best = int(own[at].argmax())
        ces = [-math.log(float(one[label])) for one in (q, p)]
        found.append((kl, 1 - math.exp(-kl), float(best == int(theirs[at].argmax())), *ces, float(best == row[at])))
    return dict(zip(MEASURES, (sum(column) / len(found) for column in zip(*found, strict=True)), strict=True))


def test_a_reading_equals_the_means_written_out_in_float64(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    rows = [[5, 6, 7, 8, 9], [10, 11, 12], [20, 20, 20, 20]]
    ids = torch.tensor([[*row, *[0] * (5 - len(row))] for row in rows])
    looked_at = [{"input_ids": ids, "attention_mask": (ids != 0).long()}]
    before = [written_out(student, teacher, row) for row in rows]
    lesson(student, teacher, make_batches(), None, listener, eval_dataloader=looked_at)
    unseen = [event for event in listener.of(Reading) if event.unseen]
    for reading, expected in ((unseen[0], before), (unseen[-1], [written_out(student, teacher, row) for row in rows])):
        assert [row.tokens for row in reading.rows] == [4, 2, 3]
        for row, right in zip(reading.rows, expected, strict=True):
            assert {name: getattr(row, name) for name in MEASURES} == pytest.approx(right, rel=1e-4, abs=1e-6)


def test_all_labels_of_a_row_count_and_no_other_position(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    row, labels = [5, 6, 7, 8, 9, 10], [-100, -100, 7, 8, -100, 10]
    looked_at = [{"input_ids": torch.tensor([row]), "labels": torch.tensor([labels])}]
    right = written_out(student, teacher, row, labels)
    lesson(student, teacher, make_batches(), None, listener, eval_dataloader=looked_at)
    (read,) = listener.of(Reading)[0].rows
    assert read.tokens == 3
    assert {name: getattr(read, name) for name in MEASURES} == pytest.approx(right, rel=1e-4, abs=1e-6)


def test_a_student_that_repeats_its_input_is_all_echo_and_a_copy_of_the_teacher_is_at_distance_0() -> None:
    batch = to_batch({"input_ids": torch.tensor([[5, 6, 7], [8, 9, 9]])})
    parrot = nn.functional.one_hot(batch.input_ids, 12).float() * 9
    logits = torch.randn(2, 3, 12)

    def read(own: torch.Tensor, theirs: torch.Tensor) -> Any:
        return RowReader(single_rows(batch), columns=12).read(lambda some, known: (own, DenseLogits(theirs), some))

    assert [row.echo for row in read(parrot, logits)] == [1.0, 1.0]
    same = read(logits, logits)
    assert [(row.kl, row.normalised_kl, row.agreement) for row in same] == [(0.0, 0.0, 1.0)] * 2
    assert all(row.ce == row.teacher_ce for row in same)


def test_a_row_alone_has_the_numbers_that_it_has_beside_others_and_at_any_padding(student: Any, teacher: Any) -> None:
    batch = to_batch({"input_ids": torch.tensor([[0, 0, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]]),
                      "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])})  # fmt: skip

    def ask(some: Any, known: Any) -> Any:
        own, theirs = (
            m(input_ids=some.input_ids, attention_mask=some.attention_mask).logits for m in (student, teacher)
        )
        return own, DenseLogits(theirs), some

    with torch.no_grad():
        together = RowReader(single_rows(batch), columns=64).read(ask)
        alone = [RowReader([row], columns=64).read(ask)[0] for row in single_rows(batch)]
    for one, other in zip(together, alone, strict=True):
        assert [getattr(one, name) for name in MEASURES] == pytest.approx([getattr(other, name) for name in MEASURES])


def test_the_teachers_logits_are_computed_once_if_they_fit_and_else_at_each_reading(monkeypatch: Any) -> None:
    rows, asked = single_rows(to_batch({"input_ids": torch.tensor([[5, 6, 7]])})), []

    def ask(some: Any, known: Any) -> Any:
        asked.append(known)
        return torch.zeros(1, 3, 12), DenseLogits(torch.zeros(1, 3, 12)), some

    reader = RowReader(rows, columns=12)
    assert reader.read(ask) == reader.read(ask)
    assert [known is None for known in asked] == [True, False]
    monkeypatch.setattr("apt_model.distill.fixed_rows.KEPT_FLOATS", 35)
    asked.clear()
    reader = RowReader(rows, columns=12)
    assert reader.read(ask) == reader.read(ask)
    assert asked == [None, None]


def test_a_cached_teachers_numbers_equal_the_sums_written_out_in_float64() -> None:
    torch.manual_seed(3)
    own, theirs, k, temperature = torch.randn(2, 4, 10), 3 * torch.randn(2, 4, 10), 3, 2.0
    batch = to_batch({"input_ids": torch.randint(10, (2, 4))})
    p = theirs[:, :3].reshape(6, 10).double().softmax(-1)
    warm = (theirs[:, :3].reshape(6, 10).double() / temperature).softmax(-1)
    best = p.topk(k, dim=-1)
    rest, warm_known = 1 - best.values.sum(-1), warm.gather(1, best.indices)
    rows = TopRows(best.indices, warm_known.log().float(), (1 - warm_known.sum(-1)).log().float(), rest.log().float())
    has_label = torch.tensor([[True] * 3 + [False]] * 2)
    sparse = SparseLogits(rows=rows, has_label=has_label, width=10, temperature=temperature)
    found = sparse.at_labels(own, batch)
    q, labels = own[:, :3].reshape(6, 10).double().softmax(-1), batch.labels[:, 1:].flatten().tolist()
    for at, label in enumerate(labels):
        ids = best.indices[at].tolist()
        outside = 1 - float(q[at, ids].sum())
        kl = sum(float(p[at, i] * (p[at, i] / q[at, i]).log()) for i in ids)
        kl += float(rest[at]) * math.log(float(rest[at]) / outside)
        ce = -math.log(float(p[at, label]) if label in ids else float(rest[at]) / 7)
        assert float(found.kl_nats[at]) == pytest.approx(kl, rel=1e-4)
        assert float(found.teacher_ce[at]) == pytest.approx(ce, rel=1e-4)
        assert float(found.agreed[at]) == float(int(own[at // 3, at % 3].argmax()) == ids[0])


def test_with_one_vocabulary_and_spans_of_one_token_another_tokenizers_teacher_has_the_numbers_of_its_own() -> None:
    torch.manual_seed(5)
    own, theirs, ids = torch.randn(2, 4, 9), 3 * torch.randn(2, 4, 9), torch.randint(9, (2, 4))
    batch = to_batch({"input_ids": ids})
    spans = torch.tensor([[row, at, 1, at, 1] for row in range(2) for at in range(1, 4)])
    teachers = TeachersRows(input_ids=ids, attention_mask=torch.ones_like(ids), spans=spans)
    every = torch.arange(9)
    crossed = CrossedLogits(logits=theirs, beginnings=Beginnings(count=9, student=every, teacher=every))
    found = crossed.at_labels(own, replace(batch, teachers=teachers))
    right = DenseLogits(theirs).at_labels(own, batch)
    assert len(found.teacher_ce) == 0
    for name in ("kl_nats", "normalised_kl", "agreed", "ce", "echo"):
        assert getattr(found, name).tolist() == pytest.approx(getattr(right, name).tolist(), rel=1e-4, abs=1e-6)
    joined_spans = torch.tensor([[0, 1, 2, 1, 2], [1, 2, 2, 2, 2]])  # two spans of two tokens, and two tokens in none
    two = crossed.at_labels(own, replace(batch, teachers=replace(teachers, spans=joined_spans)))
    assert [value > 0 for value in two.kl_nats.tolist()] == [True, False, False, False, True, False]
    assert [value > 0 for value in two.normalised_kl.tolist()] == [True, True, False, False, True, True]


def kinds_and_steps(listener: Listener) -> list[tuple[bool, int, int]]:
    return [(event.unseen, event.epoch, event.step) for event in listener.of(Reading)]


def test_unseen_rows_are_read_at_set_steps_too_and_learned_ones_only_at_the_start_and_the_ends_of_epochs(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    looked_at = make_batches(count=1, seed=9)
    config = {"reading_frequency": 3}
    lesson(student, teacher, make_batches(count=5), None, listener, eval_dataloader=looked_at, config=config)
    assert kinds_and_steps(listener) == [
        (True, 0, 0), (False, 0, 0), (True, 1, 3), (True, 1, 5), (False, 1, 5), (True, 2, 6),
        (True, 2, 9), (True, 2, 10), (False, 2, 10),
    ]  # fmt: skip
    assert all(len(event.rows) == 4 for event in listener.of(Reading) if event.unseen)
    assert all(len(event.rows) == 20 for event in listener.of(Reading) if not event.unseen)


def test_without_validation_data_learned_rows_take_its_timetable_and_no_step_is_read_twice(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    lesson(student, teacher, make_batches(count=4), None, listener, config={"reading_frequency": 2})
    assert kinds_and_steps(listener) == [(False, 0, 0), (False, 1, 2), (False, 1, 4), (False, 2, 6), (False, 2, 8)]


def test_a_reading_stands_before_the_end_of_epoch_and_run_that_it_belongs_to(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    lesson(student, teacher, make_batches(), None, listener, eval_dataloader=make_batches(count=1), num_epochs=1)
    kinds = (EpochStarted, Reading, StepDone, EpochFinished, RunFinished)
    order = [event.kind for event in listener.events if type(event) in kinds]
    assert order == [
        "epoch_started", "reading", "reading", *["step"] * 4, "reading", "epoch_finished", "reading", "run_finished",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "total", "every"), [(None, None, 100), (None, 80, 50), (None, 5_000, 834), (7, 5_000, 7)]
)
def test_about_six_times_in_a_run_and_fifty_steps_apart(wanted: Any, total: Any, every: int) -> None:
    assert steps_between(wanted, total) == every


def test_texts_stand_in_the_first_reading_alone(student: Any, teacher: Any, tokenizer: Any, listener: Listener) -> None:
    lesson(student, teacher, [TEXTS[:2]], tokenizer, listener, eval_dataloader=[["互联网"], ["the large"]])
    first, learned, *others = listener.of(Reading)
    assert first.texts == ("互联网", "the large")
    assert learned.texts == tuple(TEXTS[:2])
    assert {event.texts for event in others} == {()}


def test_the_standard_plugin_reads_nothing(student: Any, teacher: Any, make_batches: Any, tmp_path: Path) -> None:
    DistillationPlugin({"lang": "en"}).distill_model(
        student,
        teacher,
        make_batches(),
        num_epochs=1,
        device="cpu",
        run_dir=tmp_path / "run",
        eval_dataloader=make_batches(),
    )
    assert not [event for event in read_events(tmp_path / "run") if isinstance(event, Reading)]


class OwnNoise(Dataset[Any]):
    """Rows that are changed at random at each reading, by generators of everyone's and of its own."""

    def __init__(self) -> None:
        self.mine, self.yours = random.Random(4), torch.Generator().manual_seed(4)
        self.hidden = [np.random.RandomState(4)]

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = self.mine.randrange(3) + int(torch.randint(3, (), generator=self.yours)) + int(torch.randint(3, ()))
        noise += int(self.hidden[0].randint(3))
        return torch.arange(8) + 4 + noise + index


def endless(batches: list[Any]) -> Iterator[Any]:
    yield from batches


@pytest.mark.parametrize("kind", ["shuffled", "own noise", "part of it", "list", "generator", "sampler"])
def test_reading_leaves_the_same_student_and_the_same_generators(
    kind: str, make_model: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    def data() -> Any:
        rows = torch.arange(240).view(40, 6) % 60 + 4
        return {
            "shuffled": lambda: DataLoader(rows, batch_size=4, shuffle=True),  # type: ignore[arg-type]
            "own noise": lambda: DataLoader(OwnNoise(), batch_size=4, shuffle=True, generator=torch.Generator()),
            "part of it": lambda: DataLoader(Subset(OwnNoise(), range(30)), batch_size=4, shuffle=True),
            "list": lambda: make_batches(count=10),
            "generator": lambda: endless(make_batches(count=10)),
            "sampler": lambda: DataLoader(rows, batch_size=4, sampler=SubsetRandomSampler(range(20))),  # type: ignore[arg-type]
        }[kind]()

    students, states = [], []
    for watched in (False, True):
        student = make_model(hidden=16, layers=1, seed=2, attention_dropout=0.3)
        held = DataLoader(OwnNoise(), batch_size=3, shuffle=True, generator=torch.Generator())
        if watched:
            config = {"sample_frequency": 1, "reading_frequency": 1}
            lesson(student, teacher, data(), None, listener, eval_dataloader=held, num_epochs=1, config=config)
        else:
            DistillationPlugin({"learning_rate": 0.01, "seed": 0, "lang": "en"}).distill_model(
                student, teacher, data(), num_epochs=1, device="cpu", eval_dataloader=held
            )
        students.append(student.state_dict())
        states.append(
            (torch.random.get_rng_state(), random.getstate(), held.generator.get_state(), held.dataset.mine.getstate())
        )  # type: ignore[attr-defined, union-attr]
    assert len(listener.of(Reading)) > 5
    assert all(torch.equal(a, b) for a, b in zip(students[0].values(), students[1].values(), strict=True))
    assert torch.equal(states[0][0], states[1][0])
    assert torch.equal(states[0][2], states[1][2])
    assert (states[0][1], states[0][3]) == (states[1][1], states[1][3])


def test_learned_rows_are_spread_over_a_data_set_that_is_read_whole(
    student: Any, teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    texts = [letter * 3 for letter in "abcdefghijklmnopqrstuvwxyz" for _ in range(4)]
    data = DataLoader(texts, batch_size=8, shuffle=True)  # type: ignore[arg-type]
    lesson(student, teacher, data, tokenizer, listener, num_epochs=1)
    first = listener.of(Reading)[0]
    assert (first.unseen, len(first.texts)) == (False, MOST_ROWS)
    assert len(set(first.texts)) == 26
    assert set(first.texts) <= set(texts)


def test_where_a_run_ends_within_its_first_epoch_only_rows_that_it_learns_from_are_called_learned(
    student: Any, teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    texts = [letter * 3 for letter in "abcdefghijklmnopqrstuvwxyz"]
    data = DataLoader(texts, batch_size=4, shuffle=False)  # type: ignore[arg-type]
    lesson(student, teacher, data, tokenizer, listener, config={"max_steps": 2})
    assert listener.of(Reading)[0].texts == ("aaa", "bbb", "ccc", "ddd")


def test_of_a_generator_the_first_window_is_read_and_no_batch_is_lost(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    config = {"gradient_accumulation_steps": 2}
    lesson(student, teacher, endless(make_batches(count=6)), None, listener, num_epochs=1, config=config)
    assert {len(event.rows) for event in listener.of(Reading)} == {8}
    assert len(listener.of(StepDone)) == 3


def test_rows_are_as_many_as_32_or_16_where_they_are_long(student: Any, teacher: Any, listener: Listener) -> None:
    def batches(length: int) -> list[Any]:
        return [{"input_ids": torch.full((10, length), 7)} for _ in range(6)]

    for length in (8, 64):
        lesson(student, teacher, batches(8), None, listener, eval_dataloader=batches(length), num_epochs=1)
    sizes = [len(event.rows) for event in listener.of(Reading) if event.unseen]
    assert sizes == [32, 32, 32, 32]  # 32 rows of 63 labels are 2,016: short enough


def test_a_teacher_that_is_nan_on_a_row_gives_nan_in_the_reading_and_ends_nothing(
    student: Any, teacher: Any, make_batches: Any, listener: Listener
) -> None:
    train = [{"input_ids": batch["input_ids"].clamp(max=60)} for batch in make_batches()]
    with torch.no_grad():
        teacher.model.embed_tokens.weight[63] = float("nan")
    with pytest.raises(NumericError, match="validation data is not finite"):
        lesson(student, teacher, train, None, listener, eval_dataloader=[torch.tensor([[5, 63, 7]])])
    first = listener.of(Reading)[0]
    assert math.isnan(first.rows[0].kl)
    assert len(listener.of(StepDone)) == 4


def test_a_reading_that_fails_ends_the_readings_is_told_and_leaves_the_training_alone(
    student: Any, teacher: Any, make_batches: Any, listener: Listener, monkeypatch: Any
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such logits")

    monkeypatch.setattr(DenseLogits, "at_labels", fail)
    verdict = lesson(student, teacher, make_batches(), None, listener)
    assert not listener.of(Reading)
    assert [told.values["failure"] for told in listener.of(Notice) if told.key == "notice.display_failed"] == [
        "reading: RuntimeError: no such logits"
    ]
    assert verdict.failures == ("reading: RuntimeError: no such logits",)


class BreaksOff:
    """A sink that stops the training after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step == self._step:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("broken_at", [1, 4, 6, 8])
def test_a_resumed_run_reads_the_same_rows_and_repeats_no_reading(
    broken_at: int, stream: bool, make_model: Any, teacher: Any, make_batches: Any, tmp_path: Path
) -> None:
    class Stream:
        def __iter__(self) -> Iterator[Any]:
            yield from make_batches(count=4)

        def __len__(self) -> int:
            return 4

    def run(name: str, **more: Any) -> list[Any]:
        config = {"seed": 0, "save_steps": 1, "save_total_limit": 9, "reading_frequency": 3, "exam_prompts": ()}
        rows = torch.arange(96).view(16, 6) % 60 + 4
        data: Any = Stream() if stream else DataLoader(rows, batch_size=4, shuffle=True)  # type: ignore[arg-type]
        VisualDistillationPlugin(config).visual_distill_model(
            make_model(hidden=16, layers=1, seed=2), teacher, data, num_epochs=2, device="cpu", run_dir=tmp_path / name,
            eval_dataloader=None if stream else DataLoader(rows.flip(1), batch_size=3, shuffle=True), **more,  # type: ignore[arg-type]
        )  # fmt: skip
        lines = [json.loads(line) for line in (tmp_path / name / EVENTS).read_bytes().splitlines()]
        return [
            {key: value for key, value in line.items() if key not in ("seconds", "wall_time", "run_id", "step_seconds")}
            for line in lines
            if line["kind"] in ("reading", "step", "epoch_finished")
        ]

    whole = run("whole", sinks=[])
    with pytest.raises(KeyboardInterrupt):
        run("broken", sinks=[BreaksOff(broken_at)])
    random.seed(99), torch.manual_seed(99)
    assert run("broken", sinks=[], resume_from=tmp_path / "broken") == whole


def test_rows_taken_apart_and_joined_again_are_the_same(tokenizer: Any, chatty: Any) -> None:
    batch = to_batch(["人工智能", "ab"], tokenizer=tokenizer, teacher_tokenizer=chatty)
    rows = [row_of(json.loads(json.dumps(plain_row(row)))) for row in single_rows(batch)]
    again = joined(rows)
    assert torch.equal(again.labels, batch.labels)
    assert torch.equal(again.attention_mask, batch.attention_mask)
    assert again.teachers is not None
    assert batch.teachers is not None
    assert torch.equal(again.teachers.spans, batch.teachers.spans)
    assert torch.equal(again.teachers.attention_mask, batch.teachers.attention_mask)


def test_rows_are_spread_and_halves_of_them_too() -> None:
    assert evenly_spaced(8, 4) == [0, 4, 2, 6]
    assert evenly_spaced(3, 32) == [0, 2, 1]


def test_only_a_loader_that_draws_every_row_once_is_read_by_index() -> None:
    rows: Any = list(range(8))
    assert is_read_by_index(DataLoader(rows, batch_size=2, shuffle=True))
    assert not is_read_by_index(DataLoader(rows, batch_size=2, sampler=SubsetRandomSampler([1, 2])))
    assert not is_read_by_index(DataLoader(rows, batch_size=None))
    assert not is_read_by_index(rows)
