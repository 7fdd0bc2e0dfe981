"""The law of the data: every column of a row takes part, or is told of, or refuses the run, however the row is read.

A column takes part if the tokens, labels or positions are others once its value is another; it is told of if a notice
names it; it refuses the run by a DataError. docs/data.md has the table of rows and columns that is tested here.
"""

import copy
import csv
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from apt_model.data.batch import Batch, to_batch
from apt_model.data.dataset import load_dataset, make_dataloader, tokenize_dataset
from apt_model.errors import DataError
from tests.chats import byte_level
from tests.data.test_chat import TOOL

TOKENIZER = byte_level(
    "{% if tools %}{{ '<s>' + tools | tojson }}{% endif %}{% for d in documents or [] %}{{ d.text }}{% endfor %}"
    "{% if terse %}{{ '<s>terse' }}{% endif %}{% for m in messages %}{{ '<s>' + m.role + ' ' + (m.content or '') }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)
ASKED, ANSWERED = {"role": "user", "content": "A river?"}, {"role": "assistant", "content": "The Loire."}
BESIDE = {
    "tools": [TOOL],
    "documents": [{"title": "a", "text": "b"}],
    "chat_template_kwargs": {"terse": True},
    "system": "Be terse.",
}
SHAREGPT = [{"from": "human", "value": "A river?"}, {"from": "gpt", "value": "The Loire."}]
Row = dict[str, Any]
KINDS: dict[str, Row] = {
    "text": {"text": "A river.", "source": "a book", "label": 1},
    "chat": {"messages": [ASKED, ANSWERED], **BESIDE, "id": "7"},
    "sharegpt": {"conversations": SHAREGPT, **BESIDE, "score": 0.5},
    "flags": {"messages": [ASKED, {**ANSWERED, "weight": 0}, ASKED, ANSWERED], "date": "2024-01-02"},
    "pair": {"prompt": "A river?", "completion": " The Loire.", "id": 7},
    "turns": {"prompt": [ASKED], "completion": [ANSWERED], **BESIDE, "id": None},
    "alpaca": {"instruction": "A river?", "input": "in France", "output": "The Loire.", "history": [["Hi", "Ho"]]}
    | BESIDE,
    "question": {"question": "A river?", "context": "France", "answer": "The Loire.", "difficulty": "low"},
    "ids": {"input_ids": [1, 9, 10, 11, 2], "labels": [-100, -100, 10, 11, 2], "length": 5},
    "mask": {"input_ids": [1, 9, 10, 0, 0], "attention_mask": [1, 1, 1, 0, 0], "special_tokens_mask": [1, 0, 0, 1, 1]},
    "answers": {"input_ids": [1, 9, 10, 11, 2], "assistant_masks": [0, 0, 1, 1, 1], "token_type_ids": [0] * 5},
    "truths": {"input_ids": [1, 9, 10, 2], "completion_mask": [False, False, True, True], "name": "a"},
    "completion": {"input_ids": [1, 9, 10, 11, 2], "completion_mask": [0, 0, 0, 1, 1], "idx": 3},
    "positions": {"input_ids": [1, 9, 10, 1, 9, 2], "position_ids": [0, 1, 2, 0, 1, 2], "text": "other"},
    "preference": {"prompt": "A river?", "chosen": "The Loire.", "rejected": "The Po."},
    "lengths": {"input_ids": [1, 9, 10, 1, 9, 2], "seq_lengths": [3, 3]},
    "unknown": {"title": "A river", "body": "The Loire."},
    "both": {"text": "A river.", "messages": [ASKED, ANSWERED]},
}


def as_lines(rows: list[Row], path: Path) -> Any:
    path.with_suffix(".txt").write_text("\n".join(row["text"] for row in rows))
    return path.with_suffix(".txt")


def as_json_lines(rows: list[Row], path: Path) -> Any:
    path.with_suffix(".jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return path.with_suffix(".jsonl")


def as_json(rows: list[Row], path: Path) -> Any:
    path.with_suffix(".json").write_text(json.dumps(rows))
    return path.with_suffix(".json")


def as_cells(rows: list[Row], path: Path, ending: str) -> Any:
    """Cells as people write them: strings as they are, everything else as JSON, null as nothing."""
    cells = [
        {key: "" if cell is None else cell if isinstance(cell, str) else json.dumps(cell) for key, cell in row.items()}
        for row in rows
    ]
    with path.with_suffix(ending).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ending == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(cells)
    return path.with_suffix(ending)


def as_parquet(rows: list[Row], path: Path) -> Any:
    datasets.Dataset.from_list(rows).to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_saved(rows: list[Row], path: Path) -> Any:
    datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


def as_splits(rows: list[Row], path: Path) -> Any:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(path)
    return path


def read(source: Any, tell: Any, *, streaming: bool = False) -> list[Batch]:
    rows = tokenize_dataset(load_dataset(source, streaming=streaming, tell=tell), TOKENIZER, tell=tell)
    return [to_batch(raw, tokenizer=TOKENIZER, tell=tell) for raw in make_dataloader(rows, batch_size=4, shuffle=False)]


def read_text(source: Any, tell: Any) -> list[Batch]:
    """As rows that are not tokenized beforehand, which the loop encodes."""
    loader = make_dataloader(load_dataset(source, tell=tell), batch_size=4, shuffle=False)
    return [to_batch(raw, tokenizer=TOKENIZER, tell=tell) for raw in loader]


READERS: Mapping[str, Callable[[list[Row], Path, Any], list[Batch]]] = {
    "txt": lambda rows, path, tell: read(as_lines(rows, path), tell),
    "jsonl": lambda rows, path, tell: read(as_json_lines(rows, path), tell),
    "json": lambda rows, path, tell: read(as_json(rows, path), tell),
    "csv": lambda rows, path, tell: read(as_cells(rows, path, ".csv"), tell),
    "tsv": lambda rows, path, tell: read(as_cells(rows, path, ".tsv"), tell),
    "parquet": lambda rows, path, tell: read(as_parquet(rows, path), tell),
    "saved": lambda rows, path, tell: read(as_saved(rows, path), tell),
    "splits": lambda rows, path, tell: read(as_splits(rows, path), tell),
    "stream": lambda rows, path, tell: read(as_json_lines(rows, path), tell, streaming=True),
    "stream of parquet": lambda rows, path, tell: read(as_parquet(rows, path), tell, streaming=True),
    "in the loop": lambda rows, path, tell: read_text(as_json_lines(rows, path), tell),
    "python rows": lambda rows, path, tell: [to_batch(rows, tokenizer=TOKENIZER, tell=tell)],
    "columns": lambda rows, path, tell: [
        to_batch({key: [row[key] for row in rows] for key in rows[0]}, tokenizer=TOKENIZER, tell=tell)
    ],
    "tensors": lambda rows, path, tell: [to_batch(tensors(rows), tokenizer=TOKENIZER, tell=tell)],
}


def tensors(rows: list[Row]) -> Row:
    return {
        key: torch.tensor([row[key] for row in rows])
        if isinstance(rows[0][key], int | list)
        else [r[key] for r in rows]
        for key in rows[0]
    }


class Outcome:
    """What came of rows: the batches and what was told, or the refusal."""

    def __init__(self, rows: list[Row], reader: str, path: Path) -> None:
        self.told: set[str] = set()
        self.refusal = ""
        self.numbers: list[Any] = []
        path.mkdir(parents=True)
        try:
            batches = READERS[reader](copy.deepcopy(rows), path / "rows", self._tell)
        except DataError as error:
            self.refusal = str(error)
            return
        for batch in batches:
            parts = (batch.input_ids, batch.attention_mask, batch.labels, batch.position_ids)
            self.numbers.append([None if part is None else part.tolist() for part in parts])

    def _tell(self, key: str, /, **values: Any) -> None:
        for listed in ("columns", "keys", "names"):
            self.told |= set(values.get(listed, "").split(", "))


def another(value: Any) -> Any:
    """A value of the same kind that means something else."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + " no"
    if isinstance(value, int):
        return 1 - value if value in (0, 1) else value + 1
    if isinstance(value, float):
        return value + 1
    if isinstance(value, list):
        middle = len(value) // 2
        return [*value[:middle], another(value[middle]), *value[middle + 1 :]]
    if isinstance(value, dict):
        last = next(reversed(value))
        return {**value, last: another(value[last])}
    return "no"


CASES = [
    (kind, reader)
    for kind, row in KINDS.items()
    for reader in READERS
    if (reader != "txt" or kind == "text") and (reader != "tensors" or "input_ids" in row)
]


def fates(kind: str, reader: str, path: Path) -> dict[str, str]:
    """What becomes of each column: it takes part, is told of, refuses the row, or is lost."""
    row = KINDS[kind]
    first = Outcome([row, row], reader, path / "first")
    if first.refusal:
        assert any(column in first.refusal for column in row), first.refusal
        return dict.fromkeys(row, "refused")
    assert first.numbers
    found: dict[str, str] = {}
    for column, value in row.items():
        if value is None or (reader == "txt" and column != "text"):  # nothing to lose; a line has no other column
            continue
        if column in first.told:
            found[column] = "told of"
            continue
        other = Outcome([row, {**row, column: another(value)}], reader, path / column)
        found[column] = "takes part" if other.refusal or other.numbers != first.numbers else "LOST"
    return found


def documented() -> dict[str, dict[str, str]]:
    """The table of docs/data.md: by kind, what becomes of each column."""
    text = (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8")
    (table,) = re.findall(r"^\| row \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
    return {
        row[0]: {
            column: fate
            for fate, cell in zip(("takes part", "told of", "refused"), row[1:], strict=True)
            for column in re.findall(r"`([^`]+)`", cell)
        }
        for row in rows
    }


@pytest.mark.parametrize(("kind", "reader"), CASES)
def test_every_column_takes_part_or_is_told_of_or_refuses_as_the_docs_say(
    kind: str, reader: str, tmp_path: Path
) -> None:
    said, found = documented()[kind], fates(kind, reader, tmp_path)
    if (reader in ("csv", "tsv") and "input_ids" in said) or (reader, kind) == ("tensors", "lengths"):
        said = dict.fromkeys(said, "refused")  # a cell is text, and text is no list of ids; tensors have positions
    assert found == {column: said[column] for column in found}


def test_the_docs_table_has_every_kind_and_column() -> None:
    assert {kind: set(row) for kind, row in KINDS.items()} == {
        kind: {*columns, *(key for key, value in KINDS[kind].items() if value is None)}
        for kind, columns in documented().items()
    }


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader not in ("txt", "tensors")])
@pytest.mark.parametrize("kind", ["text", "chat", "sharegpt", "flags", "pair", "turns", "question"])
def test_a_row_means_the_same_however_it_is_read(kind: str, reader: str, tmp_path: Path) -> None:
    row = KINDS[kind]
    right = Outcome([row, row], "python rows", tmp_path / "right")
    seen = Outcome([row, row], reader, tmp_path / "seen")
    assert not seen.refusal, seen.refusal
    assert seen.numbers == right.numbers
