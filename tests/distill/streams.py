"""Streams of rows that tests resume from, by name, and a count of the rows that are read from their sources.

`jsonl` files of token ids in six shards are written once into a folder: a file written again counts as another one.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets.packaged_modules.json.json import Json
from torch.utils.data import DataLoader, IterableDataset

from apt_model.data import dataset, opening, readers
from apt_model.data.dataset import load_dataset, make_dataloader, tokenize_dataset

SHARDS, BATCH = 6, 2
READ = [0]  # rows read from their source in this process


def counting(function: Callable[..., Any], count: Callable[[Any], int]) -> Callable[..., Any]:
    """The generator function, which counts what it yields."""

    @wraps(function)
    def counted(*args: Any, **more: Any) -> Iterator[Any]:
        for one in function(*args, **more):
            READ[0] += count(one)
            yield one

    return counted


def count_rows(block: int = 6, part: int = 200) -> None:
    """Count from now on, in our own reader of JSON lines and in that of `datasets`.

    So many rows are shuffled together, and so many bytes of a file are a shard.
    """
    dataset.SHUFFLED_TOGETHER = block
    counted = {".jsonl": counting(readers.json_lines, lambda _: 1)}
    readers.LINES, readers.EACH_A_ROW = {**readers.LINES, **counted}, {**readers.EACH_A_ROW, **counted}  # type: ignore[misc]
    opening.PART = part
    Json._generate_tables = counting(Json._generate_tables, lambda pair: len(pair[1]))


def files(folder: Path, rows: int) -> list[str]:
    """Rows of 3 to 12 tokens in six files."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = torch.Generator().manual_seed(3)
    names = [folder / f"{shard}.jsonl" for shard in range(SHARDS)]
    if not names[-1].exists():
        made = [
            torch.randint(4, 64, (int(torch.randint(3, 13, (), generator=dice)),), generator=dice) for _ in range(rows)
        ]
        for shard, name in enumerate(names):
            name.write_text("".join(json.dumps({"input_ids": one.tolist()}) + "\n" for one in made[shard::SHARDS]))
    return [str(name) for name in names]


class Own(IterableDataset[Any]):
    """A stream of somebody's own with a place, and with a generator for noise in its rows."""

    def __init__(self, rows: int) -> None:
        self.rows, self.at, self.noise = rows, 0, torch.Generator().manual_seed(1)

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.at < self.rows:
            self.at += 1
            READ[0] += 1
            dice = torch.Generator().manual_seed(self.at)
            yield torch.randint(4, 60, (6,), generator=dice) + torch.randint(4, (6,), generator=self.noise)
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "noise": self.noise.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.at = state["at"]
        self.noise.set_state(state["noise"])


class OwnLoader:
    """A loader of somebody's own with a place, as torchdata's StatefulDataLoader is one."""

    def __init__(self, rows: int) -> None:
        self.dataset = Own(rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(self.dataset, BATCH))

    def state_dict(self) -> dict[str, Any]:
        return self.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.dataset.load_state_dict(state)


def raised(row: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": [4 + (token + 1) % 60 for token in row["input_ids"]]}


def hub(folder: Path, rows: int) -> Any:
    """A stream of `datasets`, of six shards."""
    cache = str(folder / "cache")
    return datasets.load_dataset("json", data_files=files(folder, rows), streaming=True, split="train", cache_dir=cache)


def stateful(data: Any, **more: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader  # type: ignore[import-not-found]

    return StatefulDataLoader(data, BATCH, **{"collate_fn": list, **more})


def packed(folder: Path, rows: int) -> Any:
    from tests.chats import byte_level

    return tokenize_dataset(
        load_dataset(files(folder, rows), streaming=True), byte_level(), max_length=24, packing=True
    )


def thinned(folder: Path, rows: int) -> Any:
    """A filter that counts."""
    turns: list[int] = []

    def is_kept(row: dict[str, Any]) -> bool:
        turns.append(len(row))
        return len(turns) % 3 > 0

    return hub(folder, rows).filter(is_kept)


STREAMS: dict[str, Callable[[Path, int], Any]] = {
    "files": lambda folder, rows: make_dataloader(load_dataset(files(folder, rows), streaming=True), batch_size=BATCH),
    "files in order": lambda folder, rows: make_dataloader(
        load_dataset(files(folder, rows), streaming=True), batch_size=BATCH, shuffle=False
    ),
    "files but some": lambda folder, rows: make_dataloader(
        load_dataset(files(folder, rows), streaming=True).skip(5), batch_size=BATCH
    ),
    "packed": lambda folder, rows: make_dataloader(packed(folder, rows), batch_size=BATCH),
    "hub": lambda folder, rows: DataLoader(hub(folder, rows).map(raised), BATCH, collate_fn=list),
    "hub batched": lambda folder, rows: hub(folder, rows).batch(BATCH),
    "hub shuffled": lambda folder, rows: DataLoader(
        hub(folder, rows).shuffle(1, buffer_size=8), BATCH, collate_fn=list
    ),
    "hub thinned": lambda folder, rows: DataLoader(thinned(folder, rows), BATCH, collate_fn=list),
    "hub, a worker": lambda folder, rows: DataLoader(hub(folder, rows), BATCH, collate_fn=list, num_workers=1),
    "own": lambda _, rows: DataLoader(Own(rows), BATCH),
    "own loader": lambda _, rows: OwnLoader(rows),
    "stateful": lambda folder, rows: stateful(hub(folder, rows).map(raised)),
    "stateful, a worker": lambda folder, rows: stateful(hub(folder, rows).map(raised), num_workers=1),
    "stateful own": lambda _, rows: stateful(Own(rows), collate_fn=None),
    "stateful own, a worker": lambda _, rows: stateful(Own(rows), collate_fn=None, num_workers=1),
    "stateful files": lambda folder, rows: stateful(STREAMS["files"](folder, rows).dataset),
}
