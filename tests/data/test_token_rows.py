"""Rows of token ids: each column beside them takes part, or the row is refused by its number."""

from typing import Any

import datasets
import pytest

from apt_model.data.batch import to_batch
from apt_model.data.dataset import tokenize_dataset
from apt_model.data.encoded import Encoded
from apt_model.data.token_rows import row_of_ids
from apt_model.errors import DataError

IDS = [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({}, Encoded(IDS, IDS)),
        ({"labels": [-100, -100, 7, 8]}, Encoded(IDS, [-100, -100, 7, 8])),
        ({"labels": None, "attention_mask": None}, Encoded(IDS, IDS)),
        ({"completion_mask": [0, 0, 1, 1]}, Encoded(IDS, [-100, -100, 7, 8])),
        ({"completion_mask": [0, 1, 1, 1], "assistant_masks": [1, 1, 1, 0]}, Encoded(IDS, [-100, 6, 7, -100])),
        ({"attention_mask": [1, 1, 1, 0]}, Encoded([5, 6, 7], [5, 6, 7])),
        ({"attention_mask": [0, 1, 1, 1]}, Encoded([6, 7, 8], [-100, 7, 8])),
        ({"attention_mask": [1, 1, 0, 1]}, Encoded([5, 6, 8], [5, 6, -100], [0, 1, 3])),
        ({"position_ids": [0, 1, 2, 3]}, Encoded(IDS, IDS)),
        ({"position_ids": [2, 3, 4, 5]}, Encoded(IDS, IDS, [2, 3, 4, 5])),
        ({"position_ids": [0, 1, 0, 1]}, Encoded(IDS, [5, 6, -100, 8], [0, 1, 0, 1])),
        ({"seq_lengths": [1, 3]}, Encoded(IDS, [5, -100, 7, 8], [0, 0, 1, 2])),
        ({"seq_lengths": [4]}, Encoded(IDS, IDS)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_column_beside_the_ids_takes_part(beside: dict[str, Any], expected: Encoded) -> None:
    assert row_of_ids({"input_ids": IDS, **beside}) == expected


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"labels": [1, 2, 3]}, "columns of row 1 of a batch differ in length.*4 input_ids, 3 labels"),
        ({"attention_mask": [1, 1]}, "row 1 of a batch differ in length"),
        ({"position_ids": [0]}, "row 1 of a batch differ in length"),
        ({"attention_mask": [1, 1, 2, 2]}, "attention_mask of row 1 of a batch has values other than 0 and 1"),
        ({"labels": IDS, "completion_mask": [0, 0, 1, 1]}, "labels and completion_mask of row 1 .*token 1: label 6"),
        ({"seq_lengths": [2, 1]}, "seq_lengths of row 1 of a batch do not fit"),
        ({"labels": "text"}, "labels of row 1 of a batch is no list"),
        ({"position_ids": [0.5] * 4}, "position_ids of row 1 of a batch is no list"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_row_that_contradicts_itself_is_refused_by_its_number(beside: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_batch([{"input_ids": [5, 6]}, {"input_ids": IDS, **beside}])


def test_rows_of_ids_keep_their_columns_through_tokenizing(tokenizer: Any) -> None:
    rows = [
        {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "assistant_masks": [0, 1, 1, 0]},
        {"input_ids": [8, 9, 10, 11], "attention_mask": [1, 1, 1, 1], "assistant_masks": [0, 0, 1, 1]},
    ]
    made = tokenize_dataset(datasets.Dataset.from_list(rows), tokenizer)
    assert made["input_ids"][:] == [[5, 6, 7], [8, 9, 10, 11]]
    assert made["labels"][:] == [[-100, 6, 7], [-100, -100, 10, 11]]
    assert [to_batch([row]).labels.tolist() for row in made] == [[[-100, 6, 7]], [[-100, -100, 10, 11]]]


def test_rows_that_trl_has_packed_stay_apart(tokenizer: Any) -> None:
    trl = pytest.importorskip("trl.data_utils")
    lengths = [2, 3, 5, 1]
    rows = datasets.Dataset.from_dict({"input_ids": [[10 * n + i for i in range(n)] for n in lengths]})
    packed = trl.pack_dataset(rows, seq_length=6)
    batch = to_batch(list(tokenize_dataset(packed, tokenizer)))
    apart = batch.apart
    found = [row[mask == 1].tolist() for row, mask in zip(apart.input_ids, apart.attention_mask, strict=True)]
    assert sorted(found) == sorted(rows["input_ids"][:])


def test_labels_on_the_padding_of_a_row_are_told_of() -> None:
    with pytest.warns(UserWarning, match="2 labels stand on padding"):
        assert row_of_ids({"input_ids": IDS, "attention_mask": [1, 1, 0, 0], "labels": IDS}).labels == [5, 6]
