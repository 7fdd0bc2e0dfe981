"""Packing: whole rows side by side, positions that begin anew, every label once."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.data.batch import to_batch
from apt_model.data.dataset import load_dataset, tokenize_dataset
from apt_model.data.encode import UNLIMITED, encode_rows
from apt_model.data.packing import best_fit, pack_rows


def test_rows_of_a_block_begin_anew_and_nothing_predicts_their_first_token(tokenizer: Any) -> None:
    (block,) = pack_rows([{"text": "ab"}, {"text": "c"}], tokenizer, 8)
    first, second = (tokenizer.convert_tokens_to_ids([*text]) for text in ("ab", "c"))
    assert block.ids == [1, *first, 2, 1, *second, 2]
    assert block.labels == [1, *first, 2, -100, *second, 2]
    assert block.positions == [0, 1, 2, 3, 0, 1, 2]


def test_a_row_that_fits_into_a_block_is_never_cut(tokenizer: Any) -> None:
    texts = ["abcdefgh"[:size] for size in (4, 1, 3, 6, 2, 5)] * 3
    blocks = pack_rows([{"text": text} for text in texts], tokenizer, 10)
    whole = [row.ids for row in encode_rows([{"text": text} for text in texts], tokenizer, UNLIMITED)]
    batch = to_batch([{"input_ids": ids, "position_ids": at or range(len(ids))} for ids, _, at in blocks])
    apart = [
        row[mask == 1].tolist() for row, mask in zip(batch.apart.input_ids, batch.apart.attention_mask, strict=True)
    ]
    assert sorted(apart) == sorted(whole)
    assert all(len(block.ids) <= 10 for block in blocks)
    assert len(blocks) == 11  # of 99 tokens: no fewer than 10 could hold them


def test_a_row_longer_than_a_block_goes_on_behind_the_start_token(tokenizer: Any) -> None:
    blocks = pack_rows([{"text": "abcdefgh"}], tokenizer, 6)
    ids = tokenizer.convert_tokens_to_ids([*"abcdefgh"])
    assert [block.ids for block in blocks] == [[1, *ids[:5]], [1, *ids[5:], 2]]
    assert blocks[1].labels == [-100, *ids[5:], 2]


def test_without_a_start_token_a_row_goes_on_behind_its_last_token() -> None:
    blocks = pack_rows([{"input_ids": list(range(10, 20))}], None, 4)
    assert [block.ids for block in blocks] == [[10, 11, 12, 13], [13, 14, 15, 16], [16, 17, 18, 19]]
    learned = [label for block in blocks for label in block.labels if label != -100]
    assert learned == list(range(10, 20))  # each once


def test_blocks_of_one_token_come_to_an_end(tokenizer: Any) -> None:
    assert [block.ids for block in pack_rows([{"input_ids": [7, 8, 9]}], tokenizer, 1)] == [[7], [8], [9]]


@given(st.lists(st.integers(1, 12), max_size=40))
def test_best_fit_places_every_piece_once_and_fills_no_block_beyond_its_size(lengths: list[int]) -> None:
    blocks = best_fit(lengths, 12)
    assert sorted(index for block in blocks for index in block) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in block) <= 12 for block in blocks)
    assert blocks == sorted(map(sorted, blocks))
    sizes = sorted(sum(lengths[index] for index in block) for block in blocks)
    assert sum(sizes[:2]) > 12 or len(sizes) < 2  # else the two emptiest would have been one


def test_packed_rows_come_out_of_a_data_set_with_their_positions(tokenizer: Any) -> None:
    rows = datasets.Dataset.from_dict({"text": ["ab", "c", "def"]})
    made = tokenize_dataset(rows, tokenizer, max_length=8, packing=True)
    assert made["position_ids"][:] == [[0, 1, 2, 3], [0, 1, 2, 0, 1, 2, 3, 4]]
    assert to_batch(list(made)).position_ids is not None


def test_a_text_that_is_cut_within_a_packed_row_begins_anew() -> None:
    row = {"input_ids": list(range(10, 18)), "seq_lengths": [2, 6]}
    blocks = pack_rows([row], None, 5)
    assert [block.ids for block in blocks] == [[10, 11, 12, 13, 14], [14, 15, 16, 17]]
    assert [block.positions for block in blocks] == [[0, 1, 0, 1, 2], [0, 1, 2, 3]]


def test_blocks_in_the_cache_of_an_older_version_are_not_used(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "rows.txt").write_text("ab\nc\ndef")
    rows = load_dataset(tmp_path / "rows.txt")
    made = tokenize_dataset(rows, tokenizer, max_length=8, packing=True)
    assert tokenize_dataset(rows, tokenizer, max_length=8, packing=True).cache_files == made.cache_files
    monkeypatch.setattr("apt_model.data.dataset.code_stamp", lambda: "other code")
    assert tokenize_dataset(rows, tokenizer, max_length=8, packing=True).cache_files != made.cache_files
