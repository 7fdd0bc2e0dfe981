"""Ready batches: what collators of transformers and TRL put beside the ids takes part, is told of, or refused."""

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DataCollatorWithFlattening

from apt_model.data.batch import Batch, rows_of, to_batch
from apt_model.data.dataset import tokenize_dataset
from apt_model.errors import DataError

ROWS = [[5, 6, 7], [8, 9, 10, 11], [12, 13]]
FLAT = torch.tensor([[token for row in ROWS for token in row]])
ANEW = [0, 1, 2, 0, 1, 2, 3, 0, 1]
FLAT_LABELS = [[5, 6, 7, -100, 9, 10, 11, -100, 13]]  # nothing predicts a row's first token; the first is never asked


def told_of(raw: Any, **how: Any) -> tuple[Batch, list[tuple[str, dict[str, Any]]]]:
    told: list[tuple[str, dict[str, Any]]] = []
    return to_batch(raw, tell=lambda key, **values: told.append((key, values)), **how), told


def flattened(**how: Any) -> dict[str, Any]:
    return dict(DataCollatorWithFlattening(**how)([{"input_ids": row} for row in ROWS]))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"return_position_ids": False, "return_flash_attn_kwargs": True},
        {"return_position_ids": False, "return_seq_idx": True},
        {"return_flash_attn_kwargs": True, "return_seq_idx": True},
    ],
    ids=["positions", "cu_seq_lens", "seq_idx", "all"],
)
def test_what_transformers_flattens_is_read_as_rows_that_begin_anew(how: dict[str, Any]) -> None:
    batch, told = told_of(flattened(**how))
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [ANEW]
    assert batch.labels[:, 1:].tolist() == [FLAT_LABELS[0][1:]]
    assert told == []


def test_packed_texts_are_laid_out_as_rows_of_their_own_and_put_back() -> None:
    batch = to_batch({"input_ids": FLAT, "position_ids": torch.tensor([ANEW])})
    apart, segments = batch.apart, batch.segments
    assert segments is not None
    assert [row[mask == 1].tolist() for row, mask in zip(apart.input_ids, apart.attention_mask, strict=True)] == ROWS
    assert segments.put_back(apart.input_ids.unsqueeze(-1))[..., 0].tolist() == FLAT.tolist()
    assert apart.position_ids is None
    assert batch.labels.tolist() == FLAT_LABELS  # of their first tokens, only the row's own could ever be asked for


def test_rows_that_are_padded_on_the_left_are_moved_with_all_that_stands_beside_them() -> None:
    raw = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
        "labels": torch.tensor([[-100, -100, -100, 6, 7], [-100, 9, 10, 11, 12]]),
        "position_ids": torch.tensor([[1, 1, 0, 1, 2], [0, 1, 2, 3, 4]]),  # as `generate` counts them
    }
    batch = to_batch(raw)
    assert batch.input_ids.tolist() == [[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.labels.tolist() == [[-100, 6, 7, -100, -100], [-100, 9, 10, 11, 12]]
    assert batch.position_ids is None  # they count from 0, as anyone would


def test_a_batchs_own_positions_are_kept() -> None:
    batch = to_batch({"input_ids": torch.tensor([[5, 6, 7]]), "position_ids": torch.tensor([[3, 4, 6]])})
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[3, 4, 6]]


@pytest.mark.parametrize("key", ["completion_mask", "assistant_masks"])
def test_masks_of_what_is_to_be_learned_make_the_labels(key: str) -> None:
    raw = {"input_ids": torch.tensor([[5, 6, 7, 8]]), key: torch.tensor([[0, 0, 1, 1]])}
    assert to_batch(raw).labels.tolist() == [[-100, -100, 7, 8]]
    assert to_batch(raw | {"labels": torch.tensor([[-100, -100, 7, 8]])}).labels.tolist() == [[-100, -100, 7, 8]]
    with pytest.raises(DataError, match=f"labels and {key} do not agree.*row 0, token 1"):
        to_batch(raw | {"labels": torch.tensor([[-100, 6, 7, 8]])})


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"attention_mask": torch.ones(1, 1, 9, 9)}, "attention_mask has 4 dimensions.*position_ids"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 2, 2, 2, 2, 3, 3]])}, "other than 0 and 1.*position_ids"),
        ({"position_ids": torch.zeros(3, 1, 9, dtype=torch.long)}, "position_ids has 3 dimensions"),
        ({"position_ids": torch.tensor([[0, 1, 2]])}, "input_ids and position_ids differ in shape"),
        ({"completion_mask": torch.tensor([[0, 1]])}, "input_ids and completion_mask differ in shape"),
        ({"completion_mask": torch.full((1, 9), 2)}, "completion_mask has values other than 0 and 1"),
        ({"cu_seq_lens_q": torch.tensor([0, 3, 8])}, "cu_seq_lens_q does not fit"),
        (
            {"cu_seq_lens_q": torch.tensor([0, 3, 9]), "position_ids": torch.tensor([ANEW])},
            "position_ids and cu_seq_lens_q of a batch do not agree",
        ),
        ({"cu_seqlens": torch.tensor([[0, 3, 8]])}, "cu_seqlens does not fit"),
        ({"labels": torch.ones(1, 9, dtype=torch.bool)}, "labels does not hold integers; got torch.bool"),
        ({"labels": FLAT.roll(-1)}, "labels are shifted already; got row 0"),
        ({"labels": torch.tensor([[-100, -100, 8, 9, 10, 11, 12, 13, -100]])}, "labels are shifted already"),
        ({"shift_labels": FLAT}, "shift_labels beside input_ids is not read.*give labels"),
        ({"loss_mask": torch.ones(1, 9)}, "loss_mask beside input_ids is not read.*completion_mask"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_honoured_is_refused_by_its_name(beside: dict[str, Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_batch({"input_ids": FLAT, **beside})


def test_keys_that_take_no_part_are_told_of() -> None:
    ids = torch.tensor([[5, 6, 7]])
    _, told = told_of({"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "max_length_q": 3, "images": None})
    assert told == [("keys_unused", {"keys": "max_length_q, token_type_ids"})]
    with pytest.warns(UserWarning, match="not used: idx"):
        to_batch({"input_ids": ids, "idx": 3})


def test_labels_on_padding_are_not_learned_and_told_of() -> None:
    ids, mask = torch.tensor([[5, 6, 0, 0]]), torch.tensor([[1, 1, 0, 0]])
    batch, told = told_of({"input_ids": ids, "attention_mask": mask, "labels": ids})
    assert batch.labels.tolist() == [[5, 6, -100, -100]]
    assert told == [("labels_on_padding", {"labels": 2})]


def test_padding_between_packed_texts_belongs_to_none_of_them() -> None:
    raw = {
        "input_ids": torch.tensor([[5, 6, 0, 7, 8, 0]]),
        "attention_mask": torch.tensor([[1, 1, 0, 1, 1, 0]]),
        "position_ids": torch.tensor([[0, 1, 0, 0, 1, 0]]),
    }
    batch = to_batch(raw)
    assert batch.segments is not None
    assert batch.segments.is_packed
    assert not batch.segments.is_dense
    assert batch.apart.input_ids.tolist() == [[5, 6], [7, 8]]
    assert batch.labels.tolist() == [[5, 6, -100, -100, 8, -100]]


def test_a_dict_of_lists_keeps_all_columns_of_its_kind_and_tells_of_others(chatty: Any) -> None:
    template = "{% for t in tools or [] %}{{ t }}{% endfor %}" + chatty.chat_template
    chatty.chat_template = template
    chat = [{"role": "user", "content": "人"}, {"role": "assistant", "content": "工"}]
    batch, told = told_of({"text": ["ab", "cd"], "weight": [1.0, 0.5]}, tokenizer=chatty)
    assert batch.input_ids.shape == (2, 4)
    assert told == [("keys_unused", {"keys": "weight"})]
    rows = [{"messages": chat, "tools": [{"name": "x"}]}, {"messages": chat, "tools": None}]
    as_columns = {key: [row[key] for row in rows] for key in rows[0]}
    assert rows_of(as_columns) == rows


def test_lists_of_token_ids_of_different_length_are_rows() -> None:
    batch = to_batch({"input_ids": ROWS, "labels": [[-100, 6, 7], [-100] * 4, [12, 13]]})
    assert batch.attention_mask.sum(dim=1).tolist() == [3, 4, 2]
    assert batch.labels[0].tolist() == [-100, 6, 7, -100]


def test_the_first_row_that_loses_tokens_or_all_of_its_labels_is_told_of(tokenizer: Any) -> None:
    rows = [{"text": "ab"}, {"text": "abcdef"}, {"prompt": "abcdef", "completion": "a"}, {"text": ""}]
    batch, told = told_of(rows, tokenizer=tokenizer, max_length=5)
    assert batch.input_ids.shape == (3, 5)
    assert told == [
        ("row_cut", {"row": 1, "tokens": 8, "max_length": 5}),
        ("row_unlearned", {"row": 2, "tokens": 9, "max_length": 5}),
        ("row_empty", {"row": 3}),
    ]


@pytest.mark.parametrize("make", [torch.tensor, np.array], ids=["torch", "numpy"])
def test_a_slice_of_a_formatted_data_set_is_rows_of_different_length(make: Callable[[list[int]], Any]) -> None:
    batch = to_batch({"input_ids": [make(row) for row in ROWS], "labels": [make(row) for row in ROWS]})
    found = zip(batch.input_ids, batch.attention_mask, strict=True)
    assert [ids[mask == 1].tolist() for ids, mask in found] == ROWS
    assert batch.labels.tolist() == [[5, 6, 7, -100], [8, 9, 10, 11], [12, 13, -100, -100]]


def test_a_nested_tensor_is_refused_by_its_name() -> None:
    nested = torch.nested.nested_tensor([torch.tensor(row) for row in ROWS], layout=torch.jagged)
    with pytest.raises(DataError, match=r"input_ids is a nested tensor.*to_padded_tensor"):
        to_batch({"input_ids": nested})


def test_a_flattened_batch_of_another_library_is_read_by_its_lengths() -> None:
    batch, told = told_of({"input_ids": FLAT, "cu_seqlens": torch.tensor([0, 3, 7, 9]), "max_seqlen": 4})
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [ANEW]
    assert told == []


def test_labels_that_are_other_tokens_are_learned_and_told_of() -> None:
    # what DataCollatorForLanguageModeling makes by default, with mlm=True: [MASK] in the place of a token to be learned
    row = {"input_ids": [5, 4, 7, 8], "labels": [-100, 6, -100, -100]}
    for raw in ({key: torch.tensor([value]) for key, value in row.items()}, [row]):
        batch, told = told_of(raw)
        assert batch.labels.tolist() == [row["labels"]]
        assert told == [("labels_other", {})]


def test_labels_of_a_row_that_are_shifted_already_or_truth_values_are_refused() -> None:
    with pytest.raises(DataError, match="labels are shifted already; got row 1 of a batch"):
        to_batch([{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [5, 6, 7], "labels": [6, 7, -100]}])
    with pytest.raises(DataError, match="labels of row 0 of a batch is no list of ids"):
        to_batch([{"input_ids": [5, 6], "labels": [False, True]}])
    same = {"input_ids": [5, 5, 5], "labels": [-100, 5, 5]}  # its labels are its own tokens as well as the next ones
    assert to_batch([same]).labels.tolist() == [[-100, 5, 5]]


def test_columns_of_ids_that_say_otherwise_what_to_learn_are_refused(tokenizer: Any) -> None:
    rows = datasets.Dataset.from_list([{"input_ids": [5, 6, 7], "loss_mask": [0, 1, 1]}])
    with pytest.raises(DataError, match="loss_mask beside input_ids is not read"):
        tokenize_dataset(rows, tokenizer, max_length=8)
