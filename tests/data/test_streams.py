"""The place in a stream: what can be kept as JSON, which functions keep nothing, and reading on from a place."""

import json
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import datasets.distributed
import numpy as np
import pytest
import torch

from apt_model.data import opening
from apt_model.data.dataset import load_dataset, make_dataloader
from apt_model.data.json_state import read, written
from apt_model.data.memoryless import is_memoryless
from apt_model.data.shuffled import ShuffledStream
from apt_model.data.streams import StreamState
from apt_model.errors import DataError
from apt_model.storage import json_writer, read_json
from tests.chats import byte_level


def test_a_state_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    state = {
        "numbers": [1, 2**80, -0.5, float("inf"), True, None],
        "by number": {3: (4, (5, "six")), 7: b"\0\xff"},
        "halves": torch.tensor([[0.5], [1.5]], dtype=torch.bfloat16),
        "none": torch.zeros(0, 3, dtype=torch.int64),
        "flags": np.array([True, False]),
        "generators": (random.Random(3).getstate(), np.random.default_rng(3).bit_generator.state),
    }
    json_writer(written(state))(tmp_path / "state.json")
    found = read(read_json(tmp_path / "state.json"))
    assert found.keys() == state.keys()
    for name in ("numbers", "by number", "generators"):
        assert found[name] == state[name]
    for name in ("halves", "none"):
        assert found[name].dtype == state[name].dtype
        assert torch.equal(found[name], state[name])
    assert found["flags"].tolist() == [True, False]


@pytest.mark.parametrize("value", [object(), {1.5: 2}, {"float": 1}, {"pairs": []}, {"bytes": 3}, [{4, 5}]])
def test_a_state_that_would_not_come_back_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="in a state_dict"):
        written(value)


SEEN: list[int] = []
TURN = 0
WORD = re.compile("x")


def counting(row: Any) -> Any:
    global TURN
    TURN += 1
    return row


def drawing(row: Any) -> Any:
    import random

    return {**row, "dice": random.random()}


def with_closure(held: Any) -> Callable[[Any], Any]:
    return lambda row: {**row, "held": held}


def counter() -> Callable[[Any], Any]:
    turn = 0

    def counted(row: Any) -> Any:
        nonlocal turn
        turn += 1
        return row

    return counted


@pytest.mark.parametrize(
    "function",
    [
        lambda row: {"text": WORD.sub("", row["text"]), "length": len(row["text"])},
        with_closure(("a", 3)),
        with_closure(byte_level()),
        with_closure(with_closure(None)),
        partial(with_closure, 3),
    ],
    ids=["constants", "a tuple", "a tokenizer", "another function", "bound"],
)
def test_a_function_of_constants_keeps_nothing(function: Any) -> None:
    assert is_memoryless(function)


@pytest.mark.parametrize(
    "function",
    [
        counting,
        drawing,
        counter(),
        with_closure([]),
        with_closure(iter("ab")),
        lambda row: SEEN.append(1) or row,  # type: ignore[func-returns-value]
        lambda row: {**row, "noise": random.random()},
        lambda row: {**row, "noise": torch.rand(1)},
        partial(with_closure, []),
        SEEN.append,
    ],
)
def test_a_function_that_may_keep_something_is_told_from_one_that_does_not(function: Any) -> None:
    assert not is_memoryless(function)


def rows(count: int = 40, shards: int = 4) -> Any:
    return datasets.Dataset.from_dict({"n": list(range(count))}).to_iterable_dataset(num_shards=shards)


def doubled(batch: Any) -> Any:
    return {"n": [one for one in batch["n"] for _ in range(2)]}


def generated(shards: list[int]) -> Iterator[dict[str, int]]:
    for shard in shards:
        yield from ({"n": 100 * shard + turn} for turn in range(9))


def of_generator(**more: Any) -> Any:
    return datasets.IterableDataset.from_generator(generated, gen_kwargs={"shards": [1, 2, 3]}, **more)


PIPELINES: dict[str, Callable[[], Any]] = {
    "a table": rows,
    "a generator": of_generator,
    "typed": lambda: of_generator(features=datasets.Features({"n": datasets.Value("int32")})),
    "mapped": lambda: rows().map(lambda row: {"n": row["n"] + 1}),
    "mapped in batches": lambda: rows().map(doubled, batched=True, batch_size=7),
    "filtered": lambda: rows().filter(lambda row: row["n"] % 3),
    "without some": lambda: rows().skip(5).take(21),
    "renamed": lambda: rows().rename_columns({"n": "m"}).select_columns(["m"]),
    "as tensors": lambda: rows().with_format("torch"),
    "in batches": lambda: rows().batch(3),
    "repeated": lambda: rows(9).repeat(3),
    "a shard": lambda: rows().shard(2, 1),
    "a node's": lambda: datasets.distributed.split_dataset_by_node(rows(), 1, 3),
    "shards in turn": lambda: rows().shuffle(3, buffer_size=1),
    "one behind another": lambda: datasets.concatenate_datasets([rows(11), of_generator()]),
    "side by side": lambda: datasets.concatenate_datasets([rows(9), rows(9).rename_column("n", "m")], axis=1),
    "in turn": lambda: datasets.interleave_datasets([rows(11), of_generator()]),
    "by chance": lambda: datasets.interleave_datasets(
        [rows(), of_generator()], [0.7, 0.3], seed=4, stopping_strategy="all_exhausted"
    ),
}


@pytest.mark.parametrize(
    ("kind", "epoch", "apart"),
    [
        *((kind, 1, 11) for kind in ("a generator", "mapped in batches", "without some", "in batches", "by chance")),
        *(pytest.param(kind, epoch, 1, marks=pytest.mark.slow) for kind in PIPELINES for epoch in (0, 1)),
    ],
)
def test_a_stream_of_datasets_that_counts_as_exact_is_so(kind: str, epoch: int, apart: int) -> None:
    assert StreamState(PIPELINES[kind]()).why_not is None
    whole = PIPELINES[kind]()
    whole.set_epoch(epoch)
    given, states = [], []
    for row in whole:
        given.append(written(row))
        states.append(json.dumps(written(whole.state_dict())))
    for turn in range(1, len(given), apart):
        again = PIPELINES[kind]()
        again.set_epoch(epoch)
        again.load_state_dict(read(json.loads(states[turn - 1])))
        assert [written(row) for row in again] == given[turn:], turn


@pytest.mark.parametrize("epoch", [pytest.param(0, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("given", [1, 7, 20])
def test_a_shuffled_stream_goes_on_from_any_of_its_rows(epoch: int, given: int) -> None:
    first, again = (ShuffledStream(rows().shuffle(3, buffer_size=1), block=7, seed=3) for _ in range(2))
    for one in (first, again):
        one.set_epoch(epoch)
    stream = iter(first)
    before = [row["n"] for row in islice(stream, given)]
    again.load_state_dict(read(json.loads(json.dumps(written(first.state_dict())))))
    rest = [row["n"] for row in stream]
    assert [row["n"] for row in again] == rest
    assert sorted(before + rest) == list(range(40))
    assert [row["n"] for row in again] == before + rest, "the next time it begins at its beginning"


def test_each_epoch_of_a_shuffled_stream_has_an_order_of_its_own() -> None:
    stream = ShuffledStream(rows(), block=100, seed=3)
    orders = set()
    for epoch in range(3):
        stream.set_epoch(epoch)
        orders.add(tuple(row["n"] for row in stream))
    assert len(orders) == 3


@pytest.mark.parametrize("ending", ["jsonl", "txt"])
@pytest.mark.parametrize("size", [1, 30])
def test_a_file_of_lines_is_the_same_in_parts_of_any_size(
    tmp_path: Path, ending: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a", "", "böse Äpfel", "x" * 50, "b", "ю" * 9]
    lines = [json.dumps({"text": one}, ensure_ascii=False) if ending == "jsonl" else one for one in texts]
    file = tmp_path / f"a.{ending}"
    file.write_bytes("\r\n".join(lines).encode())
    monkeypatch.setattr(opening, "PART", size)
    found = [row["text"] for row in load_dataset(file, streaming=True)]
    assert found == [one for one in texts if one or ending == "jsonl"]


def test_an_error_in_a_part_of_a_file_names_the_line_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PART", 40)
    file = tmp_path / "a.jsonl"
    lines = ['{"text": "good"}'] * 150 + ['{"text": "bad'] + ['{"text": "good"}'] * 20
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 151 is no JSON"):
        list(make_dataloader(load_dataset(file, streaming=True), batch_size=8, shuffle=False))


def test_a_loader_that_reads_rows_by_index_has_no_place() -> None:
    state = StreamState(make_dataloader(datasets.Dataset.from_dict({"n": [1, 2]}), batch_size=1))
    state.note(((), (), torch.zeros(1)), "ab")
    state.keep()
    assert (state.why_not, state.state_dict()) == (None, None)
