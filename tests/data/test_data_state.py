"""What samplers, data sets and collators count or shuffle on is restored with a run."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from apt_model.data.data_state import DataState, left_as_it_was

CPU = torch.device("cpu")
ROWS = 12


def seeded(seed: int) -> list[int]:
    return torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed)).tolist()


class Counting(Sampler[int]):
    epochs = 0

    def __iter__(self) -> Iterator[int]:
        self.epochs += 1
        return iter(seeded(self.epochs))

    def __len__(self) -> int:
        return ROWS


class Shuffling(Counting):
    """Shuffles one list on and on, as its epochs go by."""

    def __init__(self, order: Any) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        places = seeded(7)
        is_list = isinstance(self.order, list)
        self.order[:] = [self.order[place] for place in places] if is_list else self.order[places]
        return iter([int(one) for one in self.order])


class Lazy(Counting):
    """Makes its generator at first use."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make, self.dice = make, None

    def __iter__(self) -> Iterator[int]:
        if self.dice is None:
            self.dice = self.make()
        if isinstance(self.dice, torch.Generator):
            return iter(torch.randperm(ROWS, generator=self.dice).tolist())
        rows = list(range(ROWS))
        self.dice.shuffle(rows)  # type: ignore[attr-defined]
        return iter(rows)


@dataclass
class Phase:
    name: str = "easy"
    temperature: float = 1.0


@dataclass
class Scheduled(Sampler[int]):
    """Goes from one phase to the next, in an object of its own."""

    state: dict[str, Phase] = field(default_factory=lambda: {"v1.0": Phase()})

    def __iter__(self) -> Iterator[int]:
        phase = self.state["v1.0"]
        rows = sorted(range(ROWS), key=lambda row: (row * 7 * phase.temperature) % ROWS)
        self.state["v1.0"] = Phase("hard" if phase.name == "easy" else "harder", phase.temperature * 1.7)
        return iter(rows[:6] if phase.name == "easy" else rows)


class Stream(IterableDataset[int]):
    """Goes on where it stopped."""

    place = 0

    def __iter__(self) -> Iterator[int]:
        for _ in range(5):
            self.place += 1
            yield self.place


class Told(Dataset[int]):
    """Numbers its readings."""

    read = 0

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> int:
        self.read += 1
        return index * 1000 + self.read


def counting_collator() -> Callable[[list[int]], list[int]]:
    count = 0

    def collate(rows: list[int]) -> list[int]:
        nonlocal count
        count += 1
        return [*rows, count]

    return collate


def sampled(sampler: Callable[[], Any]) -> Callable[[], DataLoader[int]]:
    return lambda: DataLoader(list(range(ROWS)), 4, sampler=sampler(), collate_fn=list)


LOADERS: dict[str, Callable[[], DataLoader[Any]]] = {
    "a count of epochs": sampled(Counting),
    "a list shuffled on and on": sampled(lambda: Shuffling(list(range(ROWS)))),
    "an array shuffled on and on": sampled(lambda: Shuffling(np.arange(ROWS))),
    "a tensor shuffled on and on": sampled(lambda: Shuffling(torch.arange(ROWS))),
    "a generator of torch made at first use": sampled(lambda: Lazy(lambda: torch.Generator().manual_seed(3))),
    "one of numpy": sampled(lambda: Lazy(lambda: np.random.default_rng(3))),
    "an old one of numpy": sampled(lambda: Lazy(lambda: np.random.RandomState(3))),
    "one of python": sampled(lambda: Lazy(lambda: random.Random(3))),
    "a phase in an object in a mapping": sampled(Scheduled),
    "a stream that goes on": lambda: DataLoader(Stream(), 2, collate_fn=list),
    "a data set that counts": lambda: DataLoader(Told(), 4, collate_fn=list),
    "a collator that counts": lambda: DataLoader(list(range(ROWS)), 4, collate_fn=counting_collator()),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_fresh_loader_goes_on_as_the_one_whose_state_was_kept(kind: str) -> None:
    first, again = LOADERS[kind](), LOADERS[kind]()
    state = DataState(first)
    epochs = [list(first), list(first)]
    assert epochs[0] != epochs[1]
    plain, tensors = state.read_own()
    third = list(first)
    resumed = DataState(again)
    resumed.set_own(json.loads(json.dumps(plain)), tensors)
    assert resumed.read_own()[0] == plain, "what was restored is state from then on"
    assert list(again) == third


@pytest.mark.parametrize("kind", LOADERS)
def test_a_look_ahead_leaves_what_a_loader_holds_as_it_was(kind: str) -> None:
    looked_at, other = LOADERS[kind](), LOADERS[kind]()
    assert list(looked_at) == list(other)
    with left_as_it_was(looked_at):
        list(islice(looked_at, 2))
    assert list(looked_at) == list(other)


def test_what_has_not_changed_is_a_setting_and_stays_as_the_caller_made_it() -> None:
    before, now = DataLoader(Told(), 4, collate_fn=list), DataLoader(Told(), 3, collate_fn=list)
    kept = DataState(before).read_own()
    DataState(now).set_own(*kept)
    assert now.batch_size == 3
    assert kept == ({"owned": {}, "numbers": {}}, {})
