"""What stands in a file is what is learned: cells, values, splits and rows, whatever the file is called."""

import bz2
import csv
import errno
import gzip
import io
import json
import lzma
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from apt_model.commands.console import collector
from apt_model.commands.options import Parser, add_source
from apt_model.data.dataset import load_dataset, make_dataloader, split_dataset, tokenize_dataset
from apt_model.data.encode import Encoded, encode
from apt_model.data.structure import RowError
from apt_model.errors import ConfigError, DataError, StorageError
from tests.chats import byte_level
from tests.data.test_chat import TEMPLATES

CELLS = [
    *("None", "NA", "null", "n/a", "nan", "", "42", "007", "1.10", "3.00", "1e5", "-0", "True", "FALSE"),
    *("2024-01-02", "2024-01-02T03:04:05Z", "12:30", "0x1F", "∞", " two  spaces ", 'say "hi"', "a\nb", "a\tb,c;d"),
]
CHAT = [{"role": "user", "content": "A river?"}, {"role": "assistant", "content": "The Loire."}]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


class Told(list[str]):
    """A `Tell` that keeps what it is told."""

    def __call__(self, key: str, /, **values: str | int | float) -> None:
        self.append(" ".join([key, *(f"{name}={value}" for name, value in values.items() if name != "name")]))


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def both_ways(path: Path, **how: Any) -> list[Any]:
    """The rows of a file, read whole; those of its stream are the same."""
    whole, stream = (list(load_dataset(path, streaming=streaming, **how)) for streaming in (False, True))
    assert stream == whole
    return whole


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_cell_is_the_string_that_stands_there(tmp_path: Path, delimiter: str, start: str, end: str) -> None:
    path = tmp_path / ("a.csv" if delimiter == "," else "a.tsv")
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(start)
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerows([["prompt", "completion"], *([f"q{number}", cell] for number, cell in enumerate(CELLS))])
    with path.open(encoding="utf-8-sig", newline="") as file:
        expected = list(csv.DictReader(file, delimiter=delimiter))
    assert [row["completion"] for row in expected] == CELLS
    assert both_ways(path) == expected


def test_a_long_cell_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'text\n"{"word " * 100_000}"\n')
    assert both_ways(tmp_path / "a.csv") == [{"text": "word " * 100_000}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prompt,completion\na,b\nc,d,e\n", r"a\.csv, line 3 has another number of cells; got 3 cells, expected 2"),
        ('prompt,completion\na,"b\nb"\nc\n', r"a\.csv, line 4 has another number of cells; got 1 cell"),
        ('text\na\n"b\nc\n', r"a\.csv, line 3 cannot be read; got unexpected end of data"),
        ('text\n"a" b\n', r"a\.csv, line 2 cannot be read; got ',' expected after"),
        ("text,text\na,b\n", r"a\.csv, line 1 names two columns the same; got text"),
        ("text,,\na,b,c\n", r"a\.csv, line 1 names two columns the same; got two without a name"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_table_that_is_no_table_is_refused_with_its_line(
    tmp_path: Path, content: str, said: str, streaming: bool
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        load_dataset(tmp_path / "a.csv", streaming=streaming)


def test_an_index_without_a_name_is_told_of_and_not_learned(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",text\n0,a\n1,b\n")
    told = Told()
    assert load_dataset(tmp_path / "a.csv", tell=told)["text"][:] == ["a", "b"]
    assert told == ['columns_unused columns=""']


def test_json_comes_back_exactly_with_no_key_of_another_row(tmp_path: Path) -> None:
    call = {
        "id": "c1",
        "function": {"name": "f", "arguments": {"at": "2024-01-02", "x": 0.1234567890123456, "n": 2**70}},
    }
    other = {"id": "c2", "function": {"name": "g", "arguments": {"list": [1, "a", None, [True]], "s": "5"}}}
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "2024-01-02"}, {"role": "assistant", "tool_calls": [call]}]},
        {"messages": [{"role": "user", "content": "5"}, {"role": "assistant", "content": None, "tool_calls": [other]}]},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*rows))
    assert both_ways(path) == [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(lines(*({"prompt": "q", "completion": cell} for cell in CELLS)))
    assert [row["completion"] for row in both_ways(path)] == CELLS


def test_a_column_or_a_type_that_comes_late_is_not_lost(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"x": 1}}}]
    rows = [{"messages": CHAT}] * 1500 + [
        {"messages": CHAT, "tools": tools, "id": 7},
        {"messages": CHAT, "tools": "[]"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*rows))
    told = Told()
    read = load_dataset(path, tell=told)
    assert (read[0], read[1500]["tools"], read[1501]["tools"]) == ({"messages": CHAT, "tools": None}, tools, "[]")
    assert told == ["columns_unused columns=id"]
    with pytest.warns(UserWarning, match=r"a\.jsonl: columns not used: id"):
        assert list(load_dataset(path, streaming=True))[1500] == {"messages": CHAT, "tools": tools}


def test_a_stream_with_a_late_column_gives_tokens_alone(tmp_path: Path, chatty: Any) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"messages": CHAT}, {"messages": CHAT, "tools": []}))
    made = list(tokenize_dataset(load_dataset(tmp_path / "a.jsonl", streaming=True), chatty))
    assert [row.keys() for row in made] == [{"input_ids", "labels"}] * 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a",}', "line 702 is no JSON; got .* at column"),
        ('{"text": "a', "line 702 is no JSON"),
        ('{"text": "a"} {"text": "b"}', "line 702 is no JSON; got Extra data"),
        ('{"text": 5}', "line 702: text of a row is no string; got int 5"),
        ('{"text": ["a"]}', "line 702: text of a row is no string; got list"),
        ('{"text": NaN}', "line 702: text of a row is no string; got float nan"),
        ('{"text": "a", "text": "b"}', "line 702 cannot be read; got the key 'text' stands there twice"),
        ('{"text": "\\ud83d"}', "line 702 holds half a letter"),
        ("null", "line 702 is no JSON object; got null"),
        ('[{"text": "a"}]', r"line 702 is no JSON object; got \[.*an array of rows is a \.json"),
        ('"a"', "line 702 is no JSON object; got 'a'"),
        ('{"story": "a"}', "line 702: the row has no column to learn from; got story.*--columns"),
        ('{"prompt": "a", "completion": "b"}', "line 702: the data holds rows of different kinds"),
        ("[" * 100_000, "line 702 is nested too deeply"),
        ('{"text": ' + "9" * 5000 + "}", "line 702 cannot be read; got Exceeds the limit"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "ndjson.gz"])
def test_a_bad_row_among_a_thousand_is_named_by_its_line(tmp_path: Path, content: str, said: str, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    whole = f"\n{lines(*[{'text': 'a'}] * 700)}{content}\n{lines(*[{'text': 'a'}] * 300)}".encode()
    path.write_bytes(gzip.compress(whole) if ending.endswith("gz") else whole)
    with pytest.raises(DataError, match=said) as refused:
        load_dataset(path)
    assert "Fix: " in str(refused.value) or "nan" in said
    with pytest.raises(DataError, match=said):
        list(load_dataset(path, streaming=True))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": "hello"}, "messages of a row is no list of turns; got str 'hello'"),
        ({"messages": None}, "messages of a row is no list of turns; got null"),
        ({"messages": []}, "messages of a row has no turn"),
        ({"messages": ["hello"]}, "messages of a row is no list of turns"),
        (
            {"messages": [{"content": "no speaker"}]},
            r"turn 1 of a chat has no role or no content; got keys \['content'\]",
        ),
        ({"messages": [*CHAT, {"role": "user"}]}, "turn 3 of a chat has no role or no content"),
        ({"messages": [{"role": None, "content": "a"}]}, "turn 1 of a chat has no role"),
        ({"messages": {"role": "user", "content": "a"}}, "messages of a row is no list of turns; got dict"),
    ],
)
def test_a_chat_that_is_none_is_named_in_every_format(tmp_path: Path, row: Any, said: str) -> None:
    rows = [{"messages": CHAT}] * 700 + [row] + [{"messages": CHAT}] * 3
    (tmp_path / "a.jsonl").write_text(lines(*rows))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "b.json").write_text(json.dumps({"version": "1", "data": rows}))
    for name, place in (("a.jsonl", "line 701"), ("a.json", "row 701"), ("b.json", "row 701")):
        with pytest.raises(DataError, match=rf"{name}, {place}: {said}"):
            load_dataset(tmp_path / name)


def test_a_bad_row_of_a_table_is_named_by_its_number(tmp_path: Path) -> None:
    turns = [CHAT] * 1700 + [[]] + [CHAT]
    pq.write_table(pa.table({"messages": turns}), tmp_path / "a.parquet", row_group_size=500)
    feather.write_feather(pa.table({"messages": turns}), str(tmp_path / "a.feather"))
    for name in ("a.parquet", "a.feather"):
        with pytest.raises(DataError, match=rf"{name}, row 1701: messages of a row has no turn"):
            load_dataset(tmp_path / name)


@pytest.mark.parametrize("columns", ["input_ids", "labels"])
@pytest.mark.parametrize("value", [[1, 2.5], "12", [1, None], [2**70], 3])
def test_ids_that_are_none_are_named(tmp_path: Path, columns: str, value: Any) -> None:
    row = {"input_ids": [1, 2], "labels": [1, -100]}
    (tmp_path / "a.jsonl").write_text(lines(*[row] * 9, {**row, columns: value}))
    with pytest.raises(DataError, match=rf"a\.jsonl, line 10: {columns} of a row is no list of ids"):
        load_dataset(tmp_path / "a.jsonl")


@pytest.mark.parametrize("num_proc", [None, 2])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "saved", "txt"])
def test_a_row_that_no_template_takes_is_named_by_its_line_after_shuffles_and_splits(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, ending: str, num_proc: int | None
) -> None:
    rows = datasets.Dataset.from_dict({"text": [f"row {number}" for number in range(60)]})
    path = tmp_path / f"a.{ending}"
    match ending:
        case "saved":
            rows.save_to_disk(path)
        case "parquet":
            rows.to_parquet(path)
        case "csv":
            path.write_text("text\n" + "\n".join(rows["text"][:]))
        case "txt":
            path.write_text("\n\n".join(rows["text"][:]))
        case _:
            path.write_text(lines(*rows))
    expected = {"jsonl": "line 43", "csv": "line 44", "parquet": "row 43", "saved": "row 43", "txt": "line 85"}[ending]

    def refuses(rows: Sequence[Any], *_: Any, **__: Any) -> Any:
        for index, row in enumerate(rows):
            if row["text"] == "row 42":
                raise RowError.of(DataError("the template refuses a chat"), index, row)
        return [Encoded([1], [1])] * len(rows)

    monkeypatch.setattr("apt_model.data.tokenized.encode_rows", refuses)
    loaded = load_dataset(path)
    for part in (loaded, loaded.shuffle(seed=3), loaded.select(range(20, 60)), *split_dataset(loaded, 0.5, seed=1)):
        if "row 42" in part["text"][:]:
            with pytest.raises(DataError, match=rf"{expected}: the template refuses a chat"):
                tokenize_dataset(part, tokenizer, num_proc=num_proc)


def test_a_line_of_several_files_is_named_by_its_file(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "data").mkdir()
    for name in "abc":
        (tmp_path / "data" / f"{name}.jsonl").write_text(
            lines(*({"messages": [{**CHAT[0], "content": f"{name} {line}"}]} for line in (1, 2)))
        )
    rows = load_dataset([str(tmp_path / "data" / "a.jsonl"), tmp_path / "data"])
    rows = rows.select([7, 0, 5])
    with pytest.raises(
        DataError, match=r"data/c\.jsonl, line 2: data is chats, but the tokenizer has no chat template"
    ):
        tokenize_dataset(rows, tokenizer)


ARRAY = json.dumps([{"text": "a"}, {"text": "b"}], indent=2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((f"a.{ending}", lines({"text": "a"}, {"text": "b"})) for ending in ("jsonl", "ndjson", "jsonlines", "jl")),
        ("a.JSONL", '\ufeff{"text": "a"}\r\n\r\n{"text": "b"}\r\n'),
        ("a.b.Jsonl", lines({"text": "a"}, {"text": "b"})),
        ("a.json", ARRAY),
        ("a.json", '[{"text": "a"}, {"text": "b"}]'),
        ("a.json", '{"text": "a"}\n{"text": "b"}'),
        ("a.json", '{"version": 3, "rows": [{"text": "a"}, {"text": "b"}]}'),
        ("a.json", '{\n "train": [\n  {"text": "a"},\n  {"text": "b"}\n ]\n}'),
        ("a.TXT", "a\nb\n"),
        ("a.md", "\ufeffa\r\n\r\nb"),
        ("a.csv", "text\r\na\r\nb\r\n"),
        ("a.tsv", "text\na\nb"),
    ],
)
@pytest.mark.parametrize("packed", PACK)
def test_an_ending_says_how_a_file_is_read(tmp_path: Path, name: str, content: str, packed: str) -> None:
    (tmp_path / (name + packed)).write_bytes(PACK[packed](content.encode()))
    assert both_ways(tmp_path / (name + packed)) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("packed", PACK)
def test_tables_of_arrow_are_read_in_every_form(tmp_path: Path, packed: str) -> None:
    table = pa.table({"text": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, str(tmp_path / "a.feather"), compression="lz4")
    for name, kind in (("a.arrow", pa.ipc.new_stream), ("b.arrow", pa.ipc.new_file)):
        with pa.OSFile(str(tmp_path / name), "wb") as file, kind(file, table.schema) as out:
            out.write_table(table)
    for path in list(tmp_path.iterdir()):
        renamed = path.with_name(path.name + packed)
        renamed.write_bytes(PACK[packed](path.read_bytes()))
        assert both_ways(renamed) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl.bak",
        "a.jsonl.gz.part",
        "a.jsonl_",
        "a.docx",
        "a.xlsx",
        "a.html",
        "a.pdf",
        "a.zip",
        "jsonl",
        "a",
        "a.gz",
    ],
)
def test_an_unknown_ending_is_refused_and_never_learned_as_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(lines({"text": "a"}))
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"has an unknown ending; got .*, expected \.txt.*\.jsonl.*\.gz.* Fix: "):
            load_dataset(tmp_path / name, streaming=streaming)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"train": [{"text": "a"}], "test": [{"text": "b"}]}',
            r"a\.json holds several lists of rows; got train, test",
        ),
        ('["a", "b"]', r"a\.json, row 1 is no JSON object; got 'a'"),
        ('[{"text": "a"},\n {"text": "b"\n', r"a\.json, line 3 is no JSON"),
        ('{"text": "a"}\n{"text": }', r"a\.json, line 2 is no JSON"),
        ("7", r"a\.json is no JSON object"),
        ('{"text": {"0": "a", "1": "b"}}', r"a\.json, row 1: text of a row is no string"),
    ],
)
def test_a_json_file_of_another_shape_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=said):
        load_dataset(tmp_path / "a.json")


LAYOUTS = [
    ["a.jsonl", "b.jsonl"],
    ["train.jsonl", "test.jsonl"],
    ["train.jsonl", "valid.jsonl", "eval.jsonl"],
    ["training_set.jsonl", "my-dev.jsonl", "README.md", "LICENSE", ".hidden.jsonl"],
    ["train/1.jsonl", "train/2.jsonl", "validation/1.jsonl"],
    ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"],
    ["data/train/x.jsonl", "data/val/x.jsonl", "data/testing/x.jsonl", "__pycache__/y.jsonl", ".cache/z.jsonl"],
    ["train-00000-of-00001.jsonl", "other.jsonl", "dataset_infos.json"],
    ["train_training.jsonl", "test.jsonl"],
    ["contest.jsonl", "latest.jsonl"],
]


@pytest.mark.parametrize("names", LAYOUTS, ids=lambda names: names[0])
@pytest.mark.parametrize("base", ["plain", "[2024] notes", "train"])
def test_a_folder_has_the_splits_that_datasets_sees(tmp_path: Path, names: Sequence[str], base: str) -> None:
    for name in names:
        path = tmp_path / base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines({"text": name}) if name.endswith(".jsonl") else "{}" if name.endswith("json") else "none")
    plain = shutil.copytree(tmp_path / base, tmp_path / "twin")
    expected = datasets.load_dataset(str(plain))
    told = Told()
    for split, rows in expected.items():
        assert load_dataset(tmp_path / base, split=split, tell=told)["text"][:] == list(dict.fromkeys(rows["text"]))
        stream = load_dataset(tmp_path / base, split=split, streaming=True, tell=told)
        assert [row["text"] for row in stream] == list(dict.fromkeys(rows["text"]))
    with pytest.raises(DataError, match=rf"has no split 'nowhere'; expected {', '.join(expected)}"):
        load_dataset(tmp_path / base, split="nowhere")
    assert {one.partition(" ")[0] for one in told} == ({"splits_unused"} if len(expected) > 1 else set())


def test_files_of_a_folder_that_are_no_data_are_told_of(tmp_path: Path) -> None:
    for name in ("a.jsonl", "notes.docx", "README.md", "LICENSE", "a.lock", ".git/config", "deep/b.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines({"text": name}))
    told = Told()
    assert load_dataset(tmp_path, tell=told)["text"][:] == ["a.jsonl"]
    assert told == [f"files_unused folder={tmp_path} count=2 files=deep/b.bak, notes.docx"]


def test_in_a_folder_what_stands_beside_data_is_told_of_and_not_learned(tmp_path: Path) -> None:
    beside = ["CHANGELOG.md", "LICENSE.txt", "README.txt", "notes.md", "readme.md", "requirements-dev.txt"]
    for name in ("a.jsonl", "book.txt", "authors.csv", *beside):
        (tmp_path / name).write_text("text\na\n" if name.endswith(".csv") else lines({"text": "a"}))
    told = Told()
    assert len(load_dataset(tmp_path, tell=told)) == 3
    assert told[0] == f"files_unused folder={tmp_path} count=6 files={', '.join(beside[:5])} …"
    for name in ("a.jsonl", "book.txt", "authors.csv"):
        (tmp_path / name).unlink()
    assert load_dataset(tmp_path, tell=Told())["text"][:] == ['{"text": "a"}']  # notes alone are a corpus


def test_a_folder_that_is_linked_to_is_read_once_and_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.jsonl").write_text(lines({"text": "b"}))
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "a.jsonl").write_text(lines({"text": "a"}))
    (tmp_path / "near" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "round").symlink_to(tmp_path / "near")
    assert load_dataset(tmp_path / "near")["text"][:] == ["a", "b"]
    (tmp_path / "near" / "c.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"near/c\.jsonl is a link to a file that is not there; got .*gone\.jsonl"):
        load_dataset(tmp_path / "near")


def test_shards_that_are_missing_are_told_of(tmp_path: Path) -> None:
    for number in (0, 1, 3):
        (tmp_path / f"train-{number:05d}-of-00005.jsonl").write_text(lines({"text": str(number)}))
    told = Told()
    assert load_dataset(tmp_path, tell=told)["text"][:] == ["0", "1", "3"]
    first = "train-00002-of-00005.jsonl"
    assert told == [f"shards_missing folder={tmp_path} count=2 all=5 first={first}"]
    for number in (2, 4):
        (tmp_path / f"train-{number:05d}-of-00005.jsonl").write_text(lines({"text": str(number)}))
    told.clear()
    assert len(load_dataset(tmp_path, tell=told)) == 5
    assert told == []


def test_a_table_of_a_folder_without_a_byte_is_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"text": "a"}))
    (tmp_path / "b.jsonl").touch()
    assert len(load_dataset(tmp_path)) == 1
    (tmp_path / "c.parquet").touch()
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "ending"),
    [
        ("a.jsonl.txt", '{"text": "a"}\n', ".jsonl"),
        ("a.txt", '{"text": "a"}\n{"text": "b"}\n', ".jsonl"),
        ("a.csv.txt", "text\na\n", ".csv"),
    ],
)
def test_a_text_that_looks_like_rows_is_told_of(tmp_path: Path, name: str, content: str, ending: str) -> None:
    (tmp_path / name).write_text(content)
    told = Told()
    assert load_dataset(tmp_path / name, tell=told)["text"][:] == content.splitlines()
    assert told == [f"text_of_other_format ending={ending}"]


@pytest.mark.parametrize(
    ("name", "before", "bad"),
    [
        ("a.txt", b"good\n" * 6999, b"caf\xe9\n"),
        ("a.csv", b"text\n" + b"good\n" * 6998, b"caf\xe9\n"),
        ("a.jsonl", b'{"text": "good"}\n' * 6999, b'{"text": "caf\xe9"}\n'),
        ("a.jsonl.gz", b'{"text": "good"}\n' * 6999, b'{"text": "caf\xe9"}\n'),
    ],
)
def test_a_line_that_is_no_utf8_is_named(tmp_path: Path, name: str, before: bytes, bad: bytes) -> None:
    content = before + bad + before
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    for streaming in (False, True):
        with pytest.raises(DataError, match=rf"{name} cannot be read; got .*0xe9 in line 7000\. Fix: .*iconv"):
            list(load_dataset(tmp_path / name, streaming=streaming))


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_utf16_is_never_learned_as_letters_with_zero_bytes(tmp_path: Path, code: str, name: str) -> None:
    (tmp_path / name).write_bytes('text\n{"text": "a lake"}\n'.encode(code))
    with pytest.raises(DataError, match=r"cannot be read; got a zero byte .*UTF-16\. Fix: .*iconv"):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "prompt;completion\na;b\n", r"line 1 has one cell, and a separator in it; got 'prompt;completion'"),
        ("a.csv", "text\tlabel\na\tb\n", r"line 1 has one cell.*separate the cells by commas"),
        ("a.tsv", "text,label\na,b\n", r"line 1 has one cell.*separate the cells by tabs"),
        ("a.csv", "prompt, completion\na, b\n", r'got " completion", prompt'),
    ],
)
def test_a_table_with_another_separator_is_refused_by_its_first_line(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
def test_a_table_that_names_two_columns_the_same_is_refused(tmp_path: Path, name: str) -> None:
    doubled = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    (pq.write_table if name.endswith("parquet") else feather.write_feather)(doubled, tmp_path / name)
    with pytest.raises(DataError, match=r"names two columns the same; got text"):
        load_dataset(tmp_path / name)


def test_joined_files_of_text_leave_no_byte_order_mark_in_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a\n".encode("utf-8-sig") * 2)
    assert both_ways(tmp_path / "a.txt") == [{"text": "a"}] * 2


@pytest.mark.parametrize("split", ["train[10:]", "train[2:1]", "train[:0]"])
def test_a_slice_without_a_row_says_how_many_there_are(tmp_path: Path, split: str) -> None:
    (tmp_path / "a.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r"has no rows at train\[.*got 3 rows of train"):
        load_dataset(tmp_path / "a.txt", split=split)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "a name of data is empty"),
        (" ", "a name of data is empty"),
        ("~/a.jsonl", r"there is no file ~/a\.jsonl.*home directory"),
        ("shards/*.jsonl", "leave the quotes out"),
        ("https://example.org/a.jsonl", r"no file https://example\.org/a\.jsonl.*download"),
        ("nowhere", "no file or folder here has this name"),
    ],
)
def test_a_name_of_nothing_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(lines({"text": "not asked for"}))
    with pytest.raises(DataError, match=said):
        load_dataset(source)


def test_a_file_that_took_anothers_place_is_read_anew(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name[0])
        os.utime(tmp_path / name, (1_000_000_000, 1_000_000_000))
    assert load_dataset(tmp_path / "a.txt")["text"][:] == ["a"]
    (tmp_path / "b.txt").replace(tmp_path / "a.txt")
    assert load_dataset(tmp_path / "a.txt")["text"][:] == ["b"]


CARD = "---\nconfigs:\n- config_name: {}\n  data_files:\n  - split: train\n    path: one/*.jsonl\n---\nWords.\n"


def test_a_folder_with_a_card_is_read_by_its_card(tmp_path: Path) -> None:
    for name in ("one/a.jsonl", "two/b.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(lines({"text": name}))
    (tmp_path / "README.md").write_text(CARD.format("default"))
    assert load_dataset(tmp_path)["text"][:] == datasets.load_dataset(str(tmp_path), split="train")["text"][:]
    several = CARD.format("en").replace("---\nWords", "- config_name: zh\n  data_files: two/*.jsonl\n---\nWords")
    (tmp_path / "README.md").write_text(several)
    with pytest.raises(DataError, match=r"README\.md describes several data sets; got en, zh"):
        load_dataset(tmp_path)
    (tmp_path / "README.md").write_text(
        CARD.format("one").replace("path: one", "path: one").replace("  data_files", "  sep: ;\n  data_files")
    )
    with pytest.raises(DataError, match=r"README\.md says how to read its files; got sep"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "split", ["train[:10%]", "train[2:5]", "test+train[-3:]", "train[50%:]+test[:1]", "train[:40%](pct1_dropremainder)"]
)
def test_a_part_of_a_split_is_the_one_that_datasets_takes(tmp_path: Path, split: str) -> None:
    (tmp_path / "train.jsonl").write_text(lines(*({"text": f"train {number}"} for number in range(101))))
    (tmp_path / "test.jsonl").write_text(lines(*({"text": f"test {number}"} for number in range(5))))
    told = Told()
    expected = datasets.load_dataset(str(tmp_path), split=split)["text"][:]
    assert load_dataset(tmp_path, split=split, tell=told)["text"][:] == expected
    with pytest.raises(DataError, match="a stream has no part of a split"):
        load_dataset(tmp_path, split=split, streaming=True)


@pytest.mark.parametrize("split", ["test", "validation", "train_sft", "train[", "", "train[:101%]"])
def test_a_file_has_no_other_split(tmp_path: Path, split: str) -> None:
    (tmp_path / "a.txt").write_text("a\nb\nc")
    assert load_dataset(tmp_path / "a.txt", split="train[:2]")["text"][:] == ["a", "b"]
    with pytest.raises(DataError, match=r"a\.txt has no split .* expected train\. Fix: leave --split out"):
        load_dataset(tmp_path / "a.txt", split=split)


ODD = [
    "[2024] notes",
    "a::b",
    "with space",
    "语料 二",
    "a*b",
    "50% off",
    "c#1",
    "x{1}",
    "q?",
    "-x",
    "~",
    "a'b",
    "data.jsonl",
    "hf:x",
    "a,b",
    "test",
]


@pytest.mark.parametrize("odd", ODD)
def test_a_folder_or_a_file_may_have_an_odd_name(tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, (tmp_path / odd).mkdir() if not (tmp_path / odd).exists() else None
    for ending, content in (("txt", b"a\n"), ("jsonl", b'{"text": "a"}'), ("csv", b"text\na\n")):
        for packed, pack in PACK.items():
            (tmp_path / odd / f"{odd}.{ending}{packed}").write_bytes(pack(content))
    pq.write_table(table, tmp_path / odd / f"{odd}.parquet")
    monkeypatch.chdir(tmp_path)
    files = sorted((tmp_path / odd).iterdir())
    for file in files:
        assert both_ways(file) == [{"text": "a"}]
        assert both_ways(Path(odd, file.name)) == [{"text": "a"}]
    assert both_ways(tmp_path / odd, split="test" if odd == "test" else "train") == [{"text": "a"}] * len(files)


table = pa.table({"text": ["a"]})


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "story": "s", "text": "t", "id": 1}
    (tmp_path / "a.jsonl").write_text(lines(row, row))
    pq.write_table(pa.table({name: [value] * 2 for name, value in row.items()}), tmp_path / "a.parquet")
    datasets.Dataset.from_list([row, row]).save_to_disk(tmp_path / "saved")
    for name in ("a.jsonl", "a.parquet", "saved"):
        for columns, expected, unused in (
            ({"prompt": "question", "completion": "answer"}, {"prompt": "q", "completion": "a"}, "story, text, id"),
            ({"prompt": "answer", "completion": "question"}, {"prompt": "a", "completion": "q"}, "story, text, id"),
            ({"text": "story"}, {"text": "s"}, "question, answer, text, id"),
        ):
            told = Told()
            assert list(load_dataset(tmp_path / name, columns=columns, tell=told)) == [expected] * 2
            assert told == [f"columns_unused columns={unused}"]
        with pytest.raises(DataError, match=r"no column 'tale' to be renamed; expected .*story"):
            load_dataset(tmp_path / name, columns={"text": "tale"}, tell=told)
        with pytest.raises(DataError, match="a renamed column would not be used; got question renamed system, in rows"):
            load_dataset(tmp_path / name, columns={"system": "question"}, tell=told)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "i", "input": "c", "output": "o", "history": [["a", "b"]]},
        {"question": "q", "answer": "a", "context": "c"},
        {"conversations": [{"from": "human", "value": "a"}], "system": "s", "tools": "[]"},
        {
            "messages": CHAT,
            "tools": [],
            "documents": [{"title": "t"}],
            "chat_template_kwargs": {"a": 1},
            "system": None,
        },
        {
            "input_ids": [1, 2],
            "labels": [-100, 2],
            "attention_mask": [1, 1],
            "position_ids": [0, 1],
            "completion_mask": [0, 1],
        },
        {"prompt": "p", "completion": "c"},
    ],
)
def test_every_column_of_a_kind_is_kept(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "a.jsonl").write_text(lines(row))
    expected = {name.replace("conversations", "messages"): value for name, value in row.items() if value is not None}
    assert both_ways(tmp_path / "a.jsonl") == [expected]


def test_json_and_tables_of_the_same_kind_go_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"messages": CHAT}))
    pq.write_table(pa.table({"messages": [CHAT]}), tmp_path / "b.parquet")
    datasets.Dataset.from_dict({"messages": [CHAT]}).save_to_disk(tmp_path / "saved")
    rows = load_dataset([tmp_path / name for name in ("a.jsonl", "b.parquet", "saved")])
    assert rows["messages"][:] == [CHAT] * 3


def test_rows_are_read_once_and_anew_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    first = load_dataset(path)
    assert first.cache_files == load_dataset(path).cache_files
    path.write_text("b\n")
    os.utime(path, ns=(1, 1))
    assert load_dataset(path)["text"][:] == ["b"]
    path.write_text("c\n")
    os.utime(path, ns=(2, 2))
    assert load_dataset(path)["text"][:] == ["c"]


@pytest.mark.parametrize("num_proc", [None, 2])
def test_what_is_left_out_is_counted_each_time(tmp_path: Path, tokenizer: Any, num_proc: int | None) -> None:
    texts = ["ab", "", "人工智能人工智能", "abc", None, "互联网是全球最大的"] * 5
    (tmp_path / "a.jsonl").write_text(lines(*({"text": text} for text in texts)))
    whole = encode([text or "" for text in texts], tokenizer, 10**9)
    over = [len(ids) - 6 for ids in whole if len(ids) > 6]
    assert over
    expected = [
        "rows_empty count=10 rows=30",
        f"rows_cut count={len(over)} rows=30 tokens={sum(over)} length=6",
    ]
    for _ in range(2):  # the second time from the cache
        told = Told()
        rows = tokenize_dataset(
            load_dataset(tmp_path / "a.jsonl"), tokenizer, max_length=6, num_proc=num_proc, tell=told
        )
        assert told == expected
        assert rows["input_ids"][:] == [ids[:6] for ids in whole if ids]
        assert rows.column_names == ["input_ids", "labels"]
    told = Told()
    tokenize_dataset(load_dataset(tmp_path / "a.jsonl"), tokenizer, max_length=6, packing=True, tell=told)
    assert told == ["rows_empty count=10 rows=30"]


def test_rows_whose_answer_is_cut_away_are_told_of(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"prompt": "a" * 9, "completion": "b"}, {"prompt": "a", "completion": "b"}]
    (tmp_path / "a.jsonl").write_text(lines(*rows * 3))
    told = Told()
    tokenize_dataset(load_dataset(tmp_path / "a.jsonl"), tokenizer, max_length=8, tell=told)
    assert [one for one in told if "cut" not in one] == ["rows_unlabelled count=3 rows=6 length=8"]


def test_nothing_is_left_to_learn_is_a_data_error(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"text": ""}, {"text": None}))
    for packing in (False, True):
        told = Told()
        rows = tokenize_dataset(load_dataset(tmp_path / "a.jsonl"), tokenizer, packing=packing, tell=told)
        assert (len(rows), told) == (0, ["rows_empty count=2 rows=2"])
        with pytest.raises(DataError, match="no row has a token"):
            make_dataloader(rows, batch_size=2)


def test_a_cache_that_cannot_be_written_is_told_of_and_the_rows_are_read(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("ab\n")
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    told = Told()
    rows = load_dataset(tmp_path / "a.txt", tell=told)
    assert tokenize_dataset(rows, tokenizer, tell=told)["input_ids"][:] == encode(["ab"], tokenizer, 9)
    assert len(told) == 1
    assert told[0].startswith(f"cache_elsewhere path={tmp_path}/file/cache spare=")


def test_tokens_go_elsewhere_if_nothing_can_be_written_beside_the_rows(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.Dataset.from_dict({"text": ["ab", "c"]}).save_to_disk(tmp_path / "saved")
    before = set(tmp_path.rglob("*"))
    monkeypatch.setattr("apt_model.data.dataset.is_writable", lambda folder: folder != tmp_path / "saved")
    told = Told()
    rows = tokenize_dataset(load_dataset(tmp_path / "saved"), tokenizer, tell=told)
    assert rows["input_ids"][:] == encode(["ab", "c"], tokenizer, 9)
    assert told[0].startswith(f"cache_elsewhere path={tmp_path}/saved spare=")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("what", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_names_the_cache_and_not_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: int
) -> None:
    (tmp_path / "a.txt").write_text("ab\n")

    def fails(*_: Any) -> None:
        raise OSError(what, os.strerror(what))

    monkeypatch.setattr("apt_model.data.stored._table", fails)
    with pytest.raises(StorageError, match=rf"data cannot be cached; got .*{os.strerror(what)}.*HF_HOME"):
        load_dataset(tmp_path / "a.txt")
    monkeypatch.undo()
    assert load_dataset(tmp_path / "a.txt")["text"][:] == ["ab"]


def test_a_column_that_is_null_everywhere_is_no_reason_to_forget_the_kind(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"prompt": "p", "completion": None, "tools": None}))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: completion of a row is null"):
        load_dataset(tmp_path / "a.jsonl")


@pytest.mark.parametrize("words", [["prompt=question", "completion=answer"], ["text=story"]])
def test_the_command_takes_columns_by_other_names(words: list[str]) -> None:
    parser = Parser()
    add_source(parser)
    given = parser.parse_args(["--data", "a.jsonl", "--columns", *words]).columns
    assert given == dict(word.split("=") for word in words)
    assert parser.parse_args(["--data", "a.jsonl"]).columns == {}
    with pytest.raises(ConfigError, match="'story' is no pair such as prompt=question"):
        parser.parse_args(["--data", "a.jsonl", "--columns", "story"])


def test_the_command_says_in_its_language_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"text": "a", "id": 1}))
    for lang, said in (("en", "a.jsonl: columns not used: id"), ("zh", "a.jsonl：以下各列没有用到：id")):
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        told: list[str] = []
        for _ in range(2):
            load_dataset(tmp_path / "a.jsonl", tell=collector(told, lang))
        assert told == [f"{tmp_path}/{said}"]


def test_a_tool_call_from_arrow_has_its_own_arguments_alone(tmp_path: Path) -> None:
    def call(**arguments: Any) -> dict[str, Any]:
        calls = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
        return {"messages": [CHAT[0], {"role": "assistant", "content": "", "tool_calls": calls}]}

    rows = [call(town="Bath"), call(day=3)]
    qwen = byte_level((TEMPLATES / "qwen2_5.jinja").read_text("utf-8"))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(lines(*rows))
    made = [tokenize_dataset(load_dataset(tmp_path / f"a.{ending}"), qwen)[:] for ending in ("parquet", "jsonl")]
    assert made[0] == made[1]
    assert '"arguments": {"day": 3}' in qwen.decode(made[0]["input_ids"][1])
