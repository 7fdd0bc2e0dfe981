"""A run is resumed with what it was made of, or refused by name: rows, teacher, student, tokenizer."""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, WeightedRandomSampler

from apt_model.data.dataset import make_dataloader, tokenize_dataset
from apt_model.distill.checkpoints import manager
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.errors import ConfigError, Interrupted
from apt_model.events.runfile import read_events
from apt_model.models import devices
from apt_model.models.lora import Lora, add_lora
from apt_model.plugins.distillation_plugin import DistillationPlugin
from tests.chats import byte_level, small_llama

IDS = torch.randint(7, 263, (44, 6), generator=torch.Generator().manual_seed(1))
TEXTS = [f"the river number {turn} rises in the hills" for turn in range(20)]
ROWS = list(IDS.split(4))
STOPPED_AT = 3


class Stop:
    """A sink that stops the run after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        pass


class Told(Stop):
    """A sink that keeps the notices."""

    def __init__(self) -> None:
        super().__init__(0)
        self.notices: list[tuple[str, Any]] = []

    def emit(self, event: Any) -> None:
        if event.kind == "notice":
            self.notices.append((event.key, event.values))


class Held(Dataset[Any]):
    """A data set of somebody's own: nobody may read it ahead of the training."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids, self.reads = ids, 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        self.reads += 1
        return self.ids[index]


def student_of(seed: int = 2, **more: Any) -> Any:
    return small_llama(seed, hidden=8, **more)


def head_alone() -> Any:
    """The student, of which only the head is trained."""
    student = student_of().requires_grad_(False)
    student.lm_head.requires_grad_(True)
    return student


def teacher_of(**more: Any) -> Any:
    return small_llama(1, hidden=16, layers=2, **more)


def shuffled(rows: Any, **more: Any) -> DataLoader[Any]:
    collate = list if isinstance(rows, datasets.Dataset) else None
    own = torch.Generator().manual_seed(5)
    return DataLoader(rows, batch_size=4, generator=own, **{"shuffle": True, "collate_fn": collate} | more)


def tokens(texts: list[str]) -> Any:
    return tokenize_dataset(datasets.Dataset.from_dict({"text": texts}), byte_level(), max_length=48)


def changed(ids: torch.Tensor, rows: slice) -> torch.Tensor:
    other = ids.clone()
    other[rows] = torch.randint(7, 263, other[rows].shape, generator=torch.Generator().manual_seed(9))
    return other


def touched(model: Any, change: Callable[[torch.Tensor], object]) -> Any:
    with torch.no_grad():
        change(model.lm_head.weight)
    return model


def lesson(
    run: Path, *, stops: int = 0, anyway: bool = False, sinks: Any = (), **given: Any
) -> dict[str, torch.Tensor]:
    """Two epochs; stopped, or resumed if the run was."""
    resumes = run.exists()
    given = {"student": student_of(), "teacher": teacher_of(), "data": ROWS} | given
    student = given.pop("student")
    with contextlib.suppress(Interrupted) if stops else contextlib.nullcontext():
        DistillationPlugin({"seed": 0, "learning_rate": 0.01, "lang": "en"}).distill_model(
            student,
            given.pop("teacher"),
            given.pop("data"),
            num_epochs=2,
            device="cpu",
            run_dir=run,
            resume_from=run if resumes else None,
            resume_anyway=anyway,
            sinks=[Stop(stops)] if stops else list(sinks),
            **given,
        )
    return {name: tensor.clone() for name, tensor in student.state_dict().items()}


def adapted(alpha: float = 16, dropout: float = 0.0, **more: Any) -> Any:
    student = student_of(**more)
    torch.manual_seed(3)
    return add_lora(student, Lora(r=2, alpha=alpha, dropout=dropout))


def optimized(turned: bool = False, **how: Any) -> dict[str, Any]:
    student = student_of()
    weights = list(student.parameters())[:: -1 if turned else 1]
    return {"student": student, "optimizer": torch.optim.SGD(weights, momentum=0.9, **how)}


def cut(rows: list[torch.Tensor], tokens: int) -> torch.Tensor:
    return torch.stack(rows)[:, :tokens]


def weighted(first: float) -> DataLoader[Any]:
    own = torch.Generator().manual_seed(5)
    sampler = WeightedRandomSampler([first, *[1.0] * 43], 44, generator=own)
    return DataLoader(list(IDS), batch_size=4, sampler=sampler)  # type: ignore[arg-type]


class Encodings(Held):
    """As transformers' tutorial has it."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.encodings, self.reads = {"input_ids": ids.tolist()}, 0

    def __len__(self) -> int:
        return len(self.encodings["input_ids"])

    def __getitem__(self, index: int) -> Any:
        return {"input_ids": torch.tensor(self.encodings["input_ids"][index])}


Given = Callable[[], dict[str, Any]]
OTHERS: dict[str, tuple[Given, Given, str]] = {
    "all rows but those of the first batch": (
        lambda: {"data": list(IDS.split(4))},
        lambda: {"data": list(changed(IDS, slice(4, None)).split(4))},
        r"data: 11 entries \(\w{12}\) then, 11 entries \(\w{12}\) now",
    ),
    "the last four rows": (
        lambda: {"data": list(IDS.split(4))},
        lambda: {"data": list(changed(IDS, slice(40, None)).split(4))},
        "data: 11 entries",
    ),
    "one token of a row that was not reached": (
        lambda: {"data": shuffled(tokens(TEXTS))},
        lambda: {"data": shuffled(tokens([*TEXTS[:-1], TEXTS[-1][:-1] + "z"]))},
        "data: 20 entries",
    ),
    "rows in another order": (
        lambda: {"data": shuffled(tokens(TEXTS), shuffle=False)},
        lambda: {"data": shuffled(tokens([*TEXTS[:18], TEXTS[19], TEXTS[18]]), shuffle=False)},
        r"got order of data: \w{12} then, \w{12} now\. Fix",
    ),
    "what a data set of somebody's own holds": (
        lambda: {"data": shuffled(Held(IDS))},
        lambda: {"data": shuffled(Held(changed(IDS, slice(40, None))))},
        "data: 44 entries",
    ),
    "a part of a data set": (
        lambda: {"data": shuffled(Subset(Held(IDS), range(40)))},
        lambda: {"data": shuffled(Subset(Held(IDS), range(4, 44)))},
        "data: 40 entries",
    ),
    "rows that are not shuffled any more": (
        lambda: {"data": shuffled(list(IDS))},
        lambda: {"data": shuffled(list(IDS), shuffle=False)},
        r"sampler: RandomSampler, drop_last=False, \w{12} then, SequentialSampler",
    ),
    "a loader without its generator": (
        lambda: {"data": shuffled(list(IDS))},
        lambda: {"data": DataLoader(list(IDS), batch_size=4, shuffle=True)},  # type: ignore[arg-type]
        r"the data's own generators: sampler\.generator then, none now",
    ),
    "workers of a data set that may draw": (
        lambda: {"data": shuffled(Held(IDS))},
        lambda: {"data": shuffled(Held(IDS), num_workers=1)},
        "workers: 0 then, 1 now",
    ),
    "a stream's first rows": (
        lambda: {"data": make_dataloader(tokens(TEXTS).to_iterable_dataset(), batch_size=2, shuffle=False)},
        lambda: {
            "data": make_dataloader(tokens(["other", *TEXTS[1:]]).to_iterable_dataset(), batch_size=2, shuffle=False)
        },
        "the epoch's first 3 batches differ",
    ),
    "a teacher of the same size": (
        dict,
        lambda: {"teacher": touched(teacher_of(), lambda weight: weight.mul_(1.5))},
        "the teacher's weights: ",
    ),
    "one bit of the teacher": (
        dict,
        lambda: {"teacher": touched(teacher_of(), lambda weight: weight.view(torch.int32)[3, 3].bitwise_xor_(1))},
        "the teacher's weights: ",
    ),
    "how the teacher computes": (dict, lambda: {"teacher": teacher_of(rms_norm_eps=1e-5)}, "the teacher's build: "),
    "another student to begin with": (
        dict,
        lambda: {"student": touched(student_of(), lambda weight: weight.mul_(2))},
        "the student's first weights: ",
    ),
    "what no checkpoint holds of the student": (
        dict,
        lambda: {"student": student_of(attention_dropout=0.5)},
        "the student's build: ",
    ),
    "which of the student's weights are trained": (
        dict,
        lambda: {"student": head_alone()},
        "the student's build: ",
    ),
    "the scale of adapters": (
        lambda: {"student": adapted()},
        lambda: {"student": adapted(alpha=8)},
        "the student's build: ",
    ),
    "the base of adapters": (
        lambda: {"student": adapted()},
        lambda: {"student": adapted(seed=9)},
        "base: ",
    ),
    "the tokenizer": (
        lambda: {"tokenizer": byte_level()},
        lambda: {"tokenizer": byte_level(turned=True)},
        "tokenizer: ",
    ),
    "the template of the tokenizer": (
        lambda: {"tokenizer": byte_level()},
        lambda: {"tokenizer": byte_level(None)},
        "tokenizer: ",
    ),
    "what the collator makes of the rows": (
        lambda: {"data": shuffled(list(IDS), collate_fn=partial(cut, tokens=6))},
        lambda: {"data": shuffled(list(IDS), collate_fn=partial(cut, tokens=5))},
        "sampler: RandomSampler",
    ),
    "weights of a sampler": (
        lambda: {"data": weighted(1.0)},
        lambda: {"data": weighted(2.0)},
        "sampler: WeightedRandomSampler",
    ),
    "which weights an optimizer of the user's own knows by which number": (
        lambda: optimized(lr=0.1),
        lambda: optimized(lr=0.1, turned=True),
        "optimizer: SGD",
    ),
    "rows that a data set of somebody's own has in a dict": (
        lambda: {"data": shuffled(Encodings(IDS))},
        lambda: {"data": shuffled(Encodings(changed(IDS, slice(40, None))))},
        "data: 44 entries",
    ),
    "the rate of an optimizer of the user's own": (
        lambda: optimized(lr=0.1),
        lambda: optimized(lr=0.2),
        r"optimizer: SGD\(lr=0\.1, .* then, SGD\(lr=0\.2",
    ),
    "texts": (
        lambda: {"data": [TEXTS[at : at + 2] for at in range(0, 20, 2)], "tokenizer": byte_level()},
        lambda: {"data": [[*TEXTS[:18], "a", "b"][at : at + 2] for at in range(0, 20, 2)], "tokenizer": byte_level()},
        "data: 10 entries",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_a_run_is_made_of_is_what_it_was_or_the_run_is_refused_by_name(what: str, tmp_path: Path) -> None:
    then, now, named = OTHERS[what]
    whole = lesson(tmp_path / "whole", **then())
    lesson(tmp_path / "run", stops=STOPPED_AT, **then())
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with pytest.raises(ConfigError, match=named) as caught:
        lesson(tmp_path / "run", **now())
    assert caught.value.exit_code == 2
    assert "resume_anyway" in str(caught.value)
    resumed = lesson(tmp_path / "copy", **then())  # made anew, as another process would
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_cached_teacher_is_told_by_its_teacher_and_what_is_kept_of_it(tmp_path: Path) -> None:
    def cached(name: str, **how: Any) -> Any:
        kept = CacheSettings(
            **{"k": 8, "temperature": 4.0, "value_type": "log8", "max_length": 48} | how, packing=False
        )
        CacheWriter(teacher_of(), tokens(TEXTS), settings=kept).run(tmp_path / name)
        return CachedTeacher(tmp_path / name)

    lesson(tmp_path / "run", stops=STOPPED_AT, teacher=cached("eight"), data=shuffled(tokens(TEXTS)))
    with pytest.raises(ConfigError, match="the teacher's weights: "):
        lesson(tmp_path / "run", teacher=cached("four", k=4), data=shuffled(tokens(TEXTS)))
    lesson(tmp_path / "run", teacher=cached("again"), data=shuffled(tokens(TEXTS)))


def test_a_student_that_a_stopped_run_left_in_memory_goes_on_as_the_same_run(tmp_path: Path) -> None:
    whole = lesson(tmp_path / "whole")
    student = student_of()
    lesson(tmp_path / "run", stops=STOPPED_AT, student=student)
    resumed = lesson(tmp_path / "run", student=student)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_what_differs_anyway_is_told_and_is_part_of_the_run_from_then_on(tmp_path: Path) -> None:
    told = Told()
    lesson(tmp_path / "run", stops=STOPPED_AT)
    other = touched(teacher_of(), lambda weight: weight.mul_(1.5))
    lesson(tmp_path / "run", teacher=other, anyway=True, sinks=[told])
    assert [values["what"][:22] for key, values in told.notices if key == "notice.resumed_anyway"] == [
        "the teacher's weights:"
    ]
    with pytest.raises(ConfigError, match="the teacher's weights: "):
        lesson(tmp_path / "run")


def test_another_number_of_threads_is_told_as_it_may_move_the_last_bits_of_a_student_cut_there(tmp_path: Path) -> None:
    lesson(tmp_path / "run", stops=STOPPED_AT)
    told, threads = Told(), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        lesson(tmp_path / "run", sinks=[told], student=touched(student_of(), lambda weight: weight.add_(1e-7)))
    finally:
        torch.set_num_threads(threads)
    said = [values["what"] for key, values in told.notices if key == "notice.resumed_elsewhere"]
    assert said == [f"threads: {threads} then, {threads + 1} now"]
    assert not [event for event in read_events(tmp_path / "run") if event.kind == "notice"]


def test_another_version_of_a_library_is_told_and_may_describe_models_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson(tmp_path / "run", stops=STOPPED_AT, tokenizer=byte_level())
    before = devices.surroundings
    monkeypatch.setattr(manager, "surroundings", lambda device: {**before(device), "transformers": "99.0"})
    told = Told()
    other = {"student": student_of(attention_dropout=1e-9), "tokenizer": byte_level(None)}
    lesson(tmp_path / "run", sinks=[told], **other)
    said = [values["what"] for key, values in told.notices if key == "notice.resumed_elsewhere"]
    assert [re.sub(r"\d[\d.]+ then", "X then", one) for one in said] == ["transformers: X then, 99.0 now"]


def test_workers_that_only_read_may_be_more_or_fewer(tmp_path: Path) -> None:
    whole = lesson(tmp_path / "whole", data=shuffled(list(IDS)))
    lesson(tmp_path / "run", stops=STOPPED_AT, data=shuffled(list(IDS), num_workers=1))
    resumed = lesson(tmp_path / "run", data=shuffled(list(IDS), num_workers=2))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_data_set_of_somebodys_own_is_not_read_ahead_of_the_training(tmp_path: Path) -> None:
    held = Held(IDS)
    lesson(tmp_path / "run", data=shuffled(held))
    assert held.reads == 2 * len(IDS)


@pytest.mark.parametrize(
    ("stops_at", "told"),
    [
        (STOPPED_AT, 0),
        pytest.param(11, 0, marks=pytest.mark.slow),  # torch waits seconds for workers that are let go
        pytest.param(12, 1, marks=pytest.mark.slow),
    ],
)
def test_workers_that_lived_on_from_an_epoch_before_are_started_again_and_told_of(
    stops_at: int, told: int, tmp_path: Path
) -> None:
    def data() -> DataLoader[Any]:
        return shuffled(Held(IDS), num_workers=1, persistent_workers=True, multiprocessing_context="fork")

    whole = lesson(tmp_path / "whole", data=data())
    lesson(tmp_path / "run", stops=stops_at, data=data())
    heard = Told()
    resumed = lesson(tmp_path / "run", data=data(), sinks=[heard])
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert [key for key, _ in heard.notices].count("notice.resumed_workers") == told


def test_a_student_a_step_past_its_checkpoint_goes_on_as_the_same_run_in_the_same_session(tmp_path: Path) -> None:
    class Twice(Stop):
        def emit(self, event: Any) -> None:
            if event.kind == "step" and event.step == self._step:
                raise KeyboardInterrupt

    whole = lesson(tmp_path / "whole")
    student = student_of()
    lesson(tmp_path / "run", stops=STOPPED_AT, student=student)
    with pytest.raises(KeyboardInterrupt):
        lesson(tmp_path / "run", student=student, sinks=[Twice(STOPPED_AT + 2)])
    resumed = lesson(tmp_path / "run", student=student)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_no_state_dict_holds_goes_on_too(role: str, tmp_path: Path) -> None:
    def models() -> dict[str, Any]:
        rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
        return {role: small_llama(3, hidden=16, rope_parameters=rope, max_position_embeddings=8)}

    own = torch.Generator().manual_seed(2)
    rows = [torch.randint(7, 263, (2, size), generator=own) for size in (12, 10, 14, 9, 11)]
    whole = lesson(tmp_path / "whole", data=rows, **models())
    lesson(tmp_path / "run", stops=4, data=rows, **models())
    resumed = lesson(tmp_path / "run", data=rows, **models())
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_sampler_that_draws_row_by_row_from_the_global_generator_goes_on(tmp_path: Path) -> None:
    class Drawing(Sampler[int]):
        def __iter__(self) -> Any:
            left = list(range(len(IDS)))
            while left:
                yield left.pop(int(torch.randint(len(left), ())))

        def __len__(self) -> int:
            return len(IDS)

    def given() -> dict[str, Any]:
        return {"data": DataLoader(list(IDS), 4, sampler=Drawing()), "student": student_of(attention_dropout=0.2)}  # type: ignore[arg-type]

    whole = lesson(tmp_path / "whole", **given())
    for stop in (2, 6, 8):
        lesson(tmp_path / str(stop), stops=stop, **given())
        resumed = lesson(tmp_path / str(stop), **given())
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
