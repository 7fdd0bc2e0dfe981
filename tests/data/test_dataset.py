"""Files become rows, rows become token ids and labels; what can be learned from is marked, and only that."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import DataLoader

from apt_model.data.batch import to_batch
from apt_model.data.dataset import load_dataset, make_dataloader, split_dataset, tokenize_dataset
from apt_model.data.encode import encode, encode_rows
from apt_model.errors import ConfigError, DataError
from tests.conftest import TEMPLATE


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_lines_are_read_stripped_and_without_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff一行\r\n\r\n  两行  \n".encode())
    (tmp_path / "b.txt").write_text("三行", encoding="utf-8")
    assert load_dataset([tmp_path / "a.txt", tmp_path / "b.txt"])["text"][:] == ["一行", "两行", "三行"]
    assert [row["text"] for row in load_dataset(tmp_path, streaming=True)] == ["一行", "两行", "三行"]


def test_the_order_follows_from_the_seed_alone_whatever_else_draws_numbers() -> None:
    def order(seed: int, draws: int) -> list[str]:
        loader = make_dataloader([{"text": str(number)} for number in range(20)], batch_size=4, seed=seed)
        read = []
        for _ in range(2):
            torch.rand(draws)
            read += [row["text"] for batch in loader for row in batch]
        return read

    assert order(1, draws=0) == order(1, draws=7)
    assert order(1, draws=0) != order(2, draws=0)
    assert order(1, draws=0)[:20] != order(1, draws=0)[20:]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "jsonl.gz", "saved"])
def test_every_format_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["一, 行", "two"], "source": ["x", "y"]})
    path = tmp_path / f"rows.{kind}"
    if kind == "saved":
        rows.save_to_disk(path)
    elif kind in ("csv", "tsv"):
        rows.to_csv(path, sep="\t" if kind == "tsv" else ",")
    elif kind == "parquet":
        rows.to_parquet(path)
    else:
        rows.to_json(path, compression="gzip" if kind.endswith("gz") else None, force_ascii=False)
    with pytest.warns(UserWarning, match=f"{path.name}: columns not used: source"):
        read = load_dataset(path)
    assert (read.column_names, read["text"][:]) == (["text"], ["一, 行", "two"])
    with pytest.warns(UserWarning, match=f"{path.name}: columns not used: source"):
        assert list(load_dataset(path, streaming=True)) == [{"text": "一, 行"}, {"text": "two"}]


def test_a_split_and_a_column_may_be_named(tmp_path: Path) -> None:
    halves = datasets.DatasetDict({name: datasets.Dataset.from_dict({"story": [name]}) for name in ("train", "test")})
    halves.save_to_disk(tmp_path / "stories")
    with pytest.warns(UserWarning, match="only the split test is used; there are others: train"):
        assert load_dataset(tmp_path / "stories", split="test", text_column="story")["text"][:] == ["test"]
    with pytest.raises(DataError, match=r"no split 'valid'; expected train, test"):
        load_dataset(tmp_path / "stories", split="valid")
    with pytest.raises(
        DataError, match=r"stories: the row has no column to learn from; got story, .* --columns text=story,"
    ):
        load_dataset(tmp_path / "stories")
    with pytest.raises(DataError, match=r"no column 'tale' to be renamed; expected story"):
        load_dataset(tmp_path / "stories", text_column="tale")


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "gbk.txt").write_bytes("一行".encode("gbk"))
    with pytest.raises(DataError, match=r"gbk\.txt cannot be read.*UnicodeDecodeError.*iconv"):
        load_dataset(tmp_path / "gbk.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="no text to learn from"):
        load_dataset(tmp_path / "empty.txt")
    (tmp_path / "null.jsonl").write_text(' null\n{"text": "a"}')
    with pytest.raises(DataError, match=r"null\.jsonl, line 1 is no JSON object; got null"):
        load_dataset(tmp_path / "null.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(DataError, match=r"broken\.jsonl, line 2 is no JSON"):
        load_dataset(tmp_path / "broken.jsonl")
    with pytest.raises(DataError, match="there is no file"):
        load_dataset(tmp_path / "nowhere.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no data file"):
        load_dataset(tmp_path / "folder")
    chats = write_rows(tmp_path / "chats.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    (tmp_path / "lines.txt").write_text("a")
    with pytest.raises(DataError, match="rows of different kinds"):
        load_dataset([chats, tmp_path / "lines.txt"])


def test_a_dataset_of_the_hub_that_cannot_be_had_is_a_data_error() -> None:
    with pytest.raises(DataError, match="owner/name cannot be read"):
        load_dataset("owner/name")


def test_the_guides_loader_over_lines_yields_what_the_loop_tokenizes(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "train.txt").write_text("人工\n智能\n医疗", encoding="utf-8")
    batches = list(DataLoader(load_dataset(tmp_path / "train.txt"), batch_size=2))
    assert batches == [{"text": ["人工", "智能"]}, {"text": ["医疗"]}]
    assert to_batch(batches[0], tokenizer=tokenizer).input_ids.tolist() == encode(["人工", "智能"], tokenizer, 9)


def test_in_a_chat_the_assistants_words_alone_are_learned(chatty: Any) -> None:
    chat = [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "人工"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "智能"},
    ]
    ((ids, labels, _),) = encode_rows([{"messages": chat}], chatty, 512)
    assert ids == chatty("<s>user ab</s><s>assistant 人工</s><s>user c</s><s>assistant 智能</s>")["input_ids"]
    assert chatty.decode([label for label in labels if label != -100]) == "人工</s>智能</s>"
    ((short, cut, _),) = encode_rows([{"messages": chat}], chatty, 10)
    assert (short, cut) == (ids[:10], labels[:10])
    told = [{"from": "human", "value": "ab"}, {"from": "gpt", "value": "人工"}]
    ((_, labels, _),) = encode_rows([{"messages": told}], chatty, 512)
    assert chatty.decode([label for label in labels if label != -100]) == "人工</s>"


def test_of_a_template_that_rewrites_what_was_said_the_answers_are_found_in_the_whole(chatty: Any) -> None:
    chatty.chat_template = "{{ 'a' * (messages | length) }}" + TEMPLATE
    chat = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}] * 2
    ((ids, labels, _),) = encode_rows([{"messages": chat}], chatty, 512)
    assert chatty.decode(ids).startswith("aaaa<s>user ab</s>")
    assert chatty.decode([label for label in labels if label != -100]) == "c</s>c</s>"


def test_a_chat_needs_a_template_a_speaker_and_words(tokenizer: Any, chatty: Any) -> None:
    with pytest.raises(DataError, match="no chat template"):
        encode_rows([{"messages": [{"role": "user", "content": "ab"}]}], tokenizer, 512)
    with pytest.raises(DataError, match=r"no role or no content; got keys \['text'\]"):
        encode_rows([{"messages": [{"text": "ab"}]}], chatty, 512)


def test_of_a_prompt_with_its_completion_the_completion_is_learned(tokenizer: Any) -> None:
    ((ids, labels, _),) = encode_rows([{"prompt": "ab", "completion": "人工"}], tokenizer, 512)
    assert tokenizer.decode(ids) == "<s>ab人工</s>"
    assert labels == [-100] * 3 + ids[3:]


def test_a_chat_of_the_files_reaches_the_batch_with_its_mask(chatty: Any, tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": "a" * n}, {"role": "assistant", "content": "人"}] for n in (1, 4)]
    rows = load_dataset(write_rows(tmp_path / "chats.jsonl", [{"messages": chat} for chat in chats]))
    raw, ready = (
        to_batch(next(iter(make_dataloader(part, batch_size=2, shuffle=False))), tokenizer=chatty)
        for part in (rows, tokenize_dataset(rows, chatty))
    )
    assert raw.labels.tolist() == ready.labels.tolist()
    assert [chatty.decode(row[row != -100]) for row in raw.labels] == ["人</s>", "人</s>"]
    assert raw.attention_mask.sum(dim=1).tolist() == [raw.input_ids.shape[1] - 3, raw.input_ids.shape[1]]


def test_tokens_are_made_once_and_found_again(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("人工\n智能\n" * 20, encoding="utf-8")
    rows = load_dataset(tmp_path / "train.txt")
    first = tokenize_dataset(rows, tokenizer, max_length=8, packing=True)
    again = tokenize_dataset(load_dataset(tmp_path / "train.txt"), copy.deepcopy(tokenizer), max_length=8, packing=True)
    assert first.cache_files
    assert first.cache_files == again.cache_files
    assert tokenize_dataset(rows, tokenizer, max_length=9).cache_files != first.cache_files
    parallel = tokenize_dataset(rows, tokenizer, max_length=8, num_proc=2)
    assert parallel["input_ids"][:] == tokenize_dataset(rows, tokenizer, max_length=8)["input_ids"][:]


def test_a_stream_is_tokenized_and_shuffled_on_the_way(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join("ab" * (n + 1) for n in range(9)))
    rows = load_dataset(tmp_path / "train.txt", streaming=True)
    tokens = tokenize_dataset(rows, tokenizer, max_length=6)
    with pytest.warns(UserWarning, match="7 of 9 samples are longer than 6 tokens"):
        batches = [to_batch(raw) for raw in make_dataloader(tokens, batch_size=4)]
    assert [len(batch.input_ids) for batch in batches] == [4, 4, 1]
    lengths = [int(n) for batch in batches for n in batch.attention_mask.sum(dim=1)]
    assert sorted(lengths) == [4] + [6] * 8


def test_rows_to_look_at_are_taken_from_the_rows_to_learn_from(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(map(str, range(20))))
    rows = load_dataset(tmp_path / "train.txt")
    train, validation = split_dataset(rows, 0.25)
    assert (len(train), len(validation)) == (15, 5)
    assert sorted([*train["text"], *validation["text"]], key=int) == list(map(str, range(20)))
    assert split_dataset(rows, 3)[1]["text"][:] == split_dataset(rows, 3)[1]["text"][:]
    stream = load_dataset(tmp_path / "train.txt", streaming=True)
    train, validation = split_dataset(stream, 4)
    assert ([row["text"] for row in validation], len(list(train))) == (["0", "1", "2", "3"], 16)
    for wrong in (0, 20, 21):
        with pytest.raises(ConfigError, match="validation leaves no row for one of the two sets"):
            split_dataset(rows, wrong)
    with pytest.raises(ConfigError, match="cannot be a share of a stream"):
        split_dataset(stream, 0.1)


def test_a_start_token_that_the_tokenizer_does_not_add_is_put_before_the_text(tokenizer: Any) -> None:
    assert encode(["人"], tokenizer, 9) == [[1, *tokenizer("人")["input_ids"], 2]]
    assert encode(["人"], tokenizer, 9, end=False) == [[1, *tokenizer("人")["input_ids"]]]
    assert [len(row) for row in encode(["人工智能", "人"], tokenizer, 3)] == [3, 3]


def test_an_empty_text_and_a_lone_surrogate_spoil_no_batch(tokenizer: Any) -> None:
    told: list[str] = []
    batch = to_batch(["", "ab"], tokenizer=tokenizer, tell=lambda key, **values: told.append(key))
    assert batch.input_ids.tolist() == encode(["ab"], tokenizer, 9)
    assert told == ["row_empty"]
    with pytest.warns(UserWarning, match="row 0 of a batch"):
        assert to_batch([""], tokenizer=tokenizer).label_count == 0
    assert encode(["a\ud800b"], tokenizer, 9) == encode(["a?b"], tokenizer, 9)


def test_the_end_of_a_text_is_learned_where_pad_and_end_share_an_id(tokenizer: Any) -> None:
    shared = copy.deepcopy(tokenizer)
    shared.pad_token = shared.eos_token
    batch = to_batch(["人工", "人"], tokenizer=shared)
    assert batch.labels.tolist()[1][-2:] == [shared.eos_token_id, -100]


def test_an_empty_cell_is_an_empty_text_and_a_number_is_none(tmp_path: Path, tokenizer: Any) -> None:
    rows = load_dataset(write_rows(tmp_path / "rows.jsonl", [{"text": "ab"}, {"text": None}]))
    with pytest.warns(UserWarning, match="1 of 2 samples have no text"):
        assert tokenize_dataset(rows, tokenizer)["input_ids"][:] == encode(["ab"], tokenizer, 9)
    with pytest.raises(DataError, match="text of a row is no string; got int"):
        encode_rows([{"text": 3}], tokenizer, 9)
