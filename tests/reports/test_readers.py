"""Reports of readers that guessed: words that became nothing, numbers, dates, other lines, other splits, old files.

Right values: the stdlib's `csv` and `json`, lines as `str.split` cuts them, `datasets`' own splits of a folder.
"""

import csv
import gzip
import json
import os
from pathlib import Path

import datasets
import pytest

from apt_model import load_dataset
from apt_model.data.dataset import make_dataloader
from tests.reports.kit import byte_tokenizer, jsonl, learned, outcome_of


@pytest.mark.parametrize("streaming", [False, True])
def test_words_that_look_like_nothing_or_numbers_are_words_in_a_csv(streaming: bool, tmp_path: Path) -> None:
    # huggingface/datasets#4467 (the transcript "null"), apache/arrow#46853 (leading zeros, quoted)
    answers = ["null", "nan", "001", "1e5", "n/a", "True"]
    for number, answer in enumerate(answers):  # a file each: the type of a column follows from all of its cells
        path = tmp_path / f"{number}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["prompt", "completion"], ["How much?", answer]])
        done = learned(path, byte_tokenizer(), streaming=streaming)
        assert done.value, f"{answer}: {done.refusal}"
        assert done.value[0][1] == f"{answer}</s>"


@pytest.mark.parametrize("streaming", [False, True])
def test_dates_in_json_are_the_strings_that_stand_there(streaming: bool, tmp_path: Path) -> None:
    # r-three/common-pile#98, huggingface/course#692 (timestamp[s] against null)
    rows = [{"prompt": "When? ", "completion": day, "created": None} for day in ("2023-10-14T00:00:00", "2024-03-01")]
    rows[1]["created"] = "2024-03-14T09:30:00"
    path = jsonl(tmp_path / "a.jsonl", rows)
    done = learned(path, byte_tokenizer(), streaming=streaming)
    assert done.value, done.refusal
    written = [json.loads(line)["completion"] for line in path.read_text().splitlines()]
    assert [taught for _, taught in done.value] == [f"{day}</s>" for day in written]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_line_ends_at_a_line_feed_alone(streaming: bool, tmp_path: Path) -> None:
    # huggingface/datasets#3729: 12 rows too many, cut at paragraph separators
    lines = ["one\u2029two", "three\x0bfour", "five\u2028six", "seven\x85eight", "nine\x0cten"]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert [row["text"] for row in load_dataset(path, streaming=streaming)] == path.read_bytes().decode().strip(
        "\n"
    ).split("\n")


@pytest.mark.parametrize("streaming", [False, True])
def test_the_test_file_beside_the_train_file_is_not_learned(streaming: bool, tmp_path: Path) -> None:
    # OpenRLHF/OpenRLHF#367, marin-community/marin#2381
    jsonl(tmp_path / "train.jsonl", [{"text": "The Ob is long."}])
    jsonl(tmp_path / "test.jsonl", [{"text": "Como is deep."}])
    theirs = datasets.load_dataset("json", data_dir=str(tmp_path), split="train")
    done = outcome_of(lambda: [row["text"] for row in load_dataset(tmp_path, streaming=streaming)])
    assert done.names("split") or done.value == list(theirs["text"]) == ["The Ob is long."]


def test_the_split_that_is_named_is_the_one_that_is_read_from_a_folder(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#1731, huggingface/datasets#5721: always train, or another split than expected
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data" / "train-00000-of-00001.jsonl", [{"text": "The Ob is long."}])
    jsonl(tmp_path / "data" / "validation-00000-of-00001.jsonl", [{"text": "Como is deep."}])
    done = outcome_of(lambda: list(load_dataset(tmp_path, split="validation")["text"]))
    assert done.names("split") or done.value == ["Como is deep."]


def test_a_compressed_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    # huggingface/datasets#2956: the cache gave the file of before
    path = tmp_path / "a.jsonl.gz"
    seen = []
    for second, text in enumerate(["The Ob is long.", "The Po is long."]):  # of equal size
        path.write_bytes(gzip.compress(json.dumps({"text": text}).encode() + b"\n", mtime=0))
        os.utime(path, (1_700_000_000 + second,) * 2)
        seen += list(load_dataset(path)["text"])
    assert seen == ["The Ob is long.", "The Po is long."]


def test_a_key_that_only_later_rows_have_does_not_stop_the_reading(tmp_path: Path) -> None:
    # huggingface/datasets#6106, RUC-NLPIR/FlashRAG#132: a column unlike that of the first rows, in row 1232
    rows = [{"text": f"River {number}.", "note": "x"} for number in range(1232)]
    rows += [{"text": "The last one.", "note": 7, "more": {"a": [1, "b"]}}]
    done = outcome_of(lambda: list(load_dataset(jsonl(tmp_path / "a.jsonl", rows))["text"]))
    assert done.names("1233") or (done.value is not None and done.value[-1] == "The last one."), done.refusal


def test_an_answer_of_another_type_is_named_with_its_row(tmp_path: Path) -> None:
    # huggingface/datasets#6106: "Could not convert '-0.2253' with type str: tried to convert to double", no row named
    rows = [{"prompt": f"Number {n}? ", "completion": str(n)} for n in range(30)]
    rows[20]["completion"] = -0.2253  # type: ignore[assignment]
    done = learned(jsonl(tmp_path / "a.jsonl", rows), byte_tokenizer())
    assert done.names("completion", "21")


def test_a_stream_with_fewer_rows_than_a_batch_is_read(tmp_path: Path) -> None:
    # huggingface/datasets#7113: nothing came of a stream of 100 rows in batches of 101
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"River {number}."} for number in range(3)])
    loader = make_dataloader(load_dataset(path, streaming=True), batch_size=8, shuffle=False)
    assert [row["text"] for batch in loader for row in batch] == ["River 0.", "River 1.", "River 2."]
