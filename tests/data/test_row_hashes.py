"""Rows have equal hashes where they are equal, however they are stored, and others where anything in them differs."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from apt_model.data import row_hashes
from apt_model.data.data_state import DataState, restorer
from apt_model.data.rng import drawn_apart, generator_names
from apt_model.data.row_hashes import hash_reader, hash_rows, with_hashes

CPU = torch.device("cpu")
ROWS = [[turn, turn + 1, 7][: 1 + turn % 3] for turn in range(30)]


def table(rows: list[list[int]]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": rows, "text": [str(row) for row in rows]})


def test_a_table_has_the_same_hashes_in_memory_on_disk_in_parts_and_by_index(tmp_path: Path) -> None:
    whole = table(ROWS)
    whole.save_to_disk(tmp_path / "saved")
    parts = datasets.concatenate_datasets([table(ROWS[:7]), table(ROWS[7:])])
    by_index = datasets.concatenate_datasets([table(ROWS[:3]), whole]).select(range(3, 33))
    for other in (datasets.load_from_disk(tmp_path / "saved"), parts, by_index, whole.with_format("torch")):
        assert hash_rows(other) == hash_rows(whole)
    assert hash_rows(DataLoader(whole, batch_size=4)) == hash_rows(whole)  # type: ignore[arg-type]


def test_the_same_rows_in_another_order_are_the_same_set() -> None:
    whole, turned = hash_rows(table(ROWS)), hash_rows(table(ROWS[::-1]))
    assert whole is not None
    assert turned is not None
    assert (whole.rows, whole.as_set) == (turned.rows, turned.as_set)
    assert whole.in_order != turned.in_order
    twice = hash_rows(table([*ROWS[1:], ROWS[1]]))
    assert twice is not None
    assert twice.as_set != whole.as_set


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=6), st.data())
def test_tokens_that_move_to_another_row_column_or_place_change_the_hash(rows: list[list[int]], data: Any) -> None:
    other = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=6))
    for made in (list, table):
        assert (hash_rows(made(rows)) == hash_rows(made(other))) == (rows == other)
    renamed = table(rows).rename_column("input_ids", "labels")
    assert hash_rows(renamed) != hash_rows(table(rows))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([torch.tensor([1, 2])], [torch.tensor([1, 3])]),
        ([torch.tensor([1, 2])], [torch.tensor([[1, 2]])]),
        ([torch.tensor([1.0])], [torch.tensor([1])]),
        ([np.array([1, 2])], [np.array([2, 1])]),
        ([{"a": 1}], [{"a": 2}]),
        ([{"a": "x"}], [{"b": "x"}]),
        (["text"], ["texts"]),
        ([b"a"], [b"b"]),
        ([{1, 2}], [{1, 3}]),
        ([float("nan")], [float("inf")]),
        (TensorDataset(torch.arange(4)), TensorDataset(torch.arange(1, 5))),
        (ConcatDataset([TensorDataset(torch.arange(4))]), ConcatDataset([TensorDataset(torch.arange(5))])),
        (Subset(TensorDataset(torch.arange(9)), [1, 2]), Subset(TensorDataset(torch.arange(9)), [1, 3])),
    ],
)
def test_rows_of_any_form_differ_where_their_values_do(one: Any, other: Any) -> None:
    assert hash_rows(one) == hash_rows(one)
    assert hash_rows(one) != hash_rows(other)


def test_what_can_be_read_only_once_has_no_hash() -> None:
    stream = table(ROWS).to_iterable_dataset()
    for data in (iter(ROWS), stream, DataLoader(stream), (row for row in ROWS)):  # type: ignore[arg-type]
        assert hash_rows(data) is None


def test_an_epoch_drawn_again_has_the_same_hash_whatever_a_transform_drew_from_the_global_generators() -> None:
    def rows() -> Any:
        for row in ROWS[1:7]:
            yield [torch.randint(9, ()), row] if row[0] % 2 else row

    torch.manual_seed(1)
    trained = []
    for turn, (_, so_far) in enumerate(with_hashes(drawn_apart(rows()))):
        trained.append(so_far)
        torch.rand(turn)  # what training draws
    torch.manual_seed(1)
    assert [so_far for _, so_far in with_hashes(drawn_apart(rows()))] == trained
    assert len(set(trained)) == 6


class Drawing(Dataset[Any]):
    """A data set with generators of every kind."""

    def __init__(self) -> None:
        self._dice, self._torch = random.Random(1), torch.Generator().manual_seed(2)
        self.pcg, self.old = np.random.default_rng(3), np.random.RandomState(4)
        self.others = [np.random.Generator(kind(5)) for kind in (np.random.Philox, np.random.MT19937, np.random.SFC64)]

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> list[float]:
        numpy = [float(one.random()) for one in (self.pcg, *self.others)]
        return [self._dice.random(), torch.rand((), generator=self._torch).item(), self.old.rand(), *numpy]


def collating() -> Callable[[Any], Any]:
    dice = random.Random(6)
    return lambda rows: [*rows, dice.random()]


def test_generators_of_any_kind_that_a_loader_owns_are_saved_as_json_and_set_again() -> None:
    import json

    data = ConcatDataset([Drawing(), Subset(Drawing(), [1, 3])])
    own = torch.Generator().manual_seed(7)
    loader = DataLoader(data, batch_size=2, shuffle=True, generator=own, collate_fn=collating())
    names = generator_names(loader)
    assert {name.rpartition(".")[2] for name in names} >= {
        "_dice",
        "_torch",
        "pcg",
        "old",
        "0",
        "2",
        "dice",
        "generator",
    }
    assert len(names) == 2 * 7 + 2
    plain, tensors = DataState(loader).read(CPU)
    restore = restorer(loader)
    first = list(loader)
    assert list(loader) != first
    DataState(loader).set(json.loads(json.dumps(plain)), tensors, CPU)
    assert list(loader) == first
    restore()
    assert list(loader) == first


def test_the_global_generators_are_nobodys_own() -> None:
    class Global(Drawing):
        def __init__(self) -> None:
            self.numpy, self.torch, self.dice = np.random, torch.default_generator, random

    assert generator_names(DataLoader(Global(), shuffle=True)) == []


def test_of_a_mapped_file_that_is_too_large_parts_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LARGE", 4_000), ("PARTS", 4), ("PART", 400)):
        monkeypatch.setattr(row_hashes, name, value)
    tokens = np.memmap(tmp_path / "train.bin", dtype=np.uint16, mode="w+", shape=(5_000,))
    tokens[:] = np.arange(5_000)

    class Blocks(Dataset[Any]):
        def __init__(self) -> None:
            self.tokens = tokens

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("read ahead")

    before = hash_rows(Blocks())
    tokens[1_000] = 9  # between two parts
    assert hash_rows(Blocks()) == before
    tokens[4_999] = 9
    assert hash_rows(Blocks()) != before


def test_a_collator_that_holds_itself_or_a_name_without_a_value_has_a_hash_and_another_body_another() -> None:
    def collating(more: int) -> Callable[[Any], Any]:
        def own(rows: Any) -> Any:
            return own(rows) if rows is later else [*rows, more]

        if more < 0:
            later = None
        return own

    def hashed(more: int) -> str:
        return hash_reader(DataLoader(ROWS, collate_fn=collating(more)))  # type: ignore[arg-type]

    assert hashed(1) == hashed(1)
    assert hashed(1) != hashed(2)
