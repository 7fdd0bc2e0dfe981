"""Reports of positions, padding and packing: what a token's loss is must not depend on what stands beside its row.

Right values: transformers' own loss of each row alone.
"""

from typing import Any

import datasets
import pytest
import torch
from transformers import DataCollatorWithFlattening

from apt_model.data.dataset import make_dataloader, tokenize_dataset
from tests.reports.kit import byte_tokenizer, outcome_of, row_losses, steps_of, tiny

IDS = [[1, 20, 31, 42, 53, 2], [1, 60, 71, 2], [1, 80, 91, 102, 113, 124, 135, 2]]


def ce_of(kind: str, batch: Any, tokenizer: Any = None) -> tuple[float, Any]:
    """Cross-entropy of the first step, and the model that it is of."""
    student = tiny(kind, spread=6.0)
    (step,) = steps_of(student, tiny(kind, seed=1), [batch], tokenizer, max_steps=1)
    assert step.ce is not None
    return step.ce, tiny(kind, spread=6.0)


@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_left_padding_gives_the_loss_of_the_rows(kind: str) -> None:
    # huggingface/trl#469, tloen/alpaca-lora#315, huggingface/transformers#18478
    longest = max(map(len, IDS))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in IDS])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in IDS])
    ce, model = ce_of(kind, {"input_ids": ids, "attention_mask": mask})
    assert ce == pytest.approx(row_losses(model, [(row, row) for row in IDS]), rel=1e-4)


@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_a_flattened_batch_gives_the_loss_of_the_rows(kind: str) -> None:
    # huggingface/transformers#31629, #36456: transformers' own collator of rows without padding
    batch = DataCollatorWithFlattening(return_tensors="pt")([{"input_ids": row, "labels": row} for row in IDS])
    done = outcome_of(lambda: ce_of(kind, batch))
    if not done.names("position_ids"):
        ce, model = done.value
        assert ce == pytest.approx(row_losses(model, [(row, row) for row in IDS]), rel=1e-4)


def test_packed_rows_do_not_see_each_other() -> None:
    # modelscope/ms-swift#7322, MeetKai/functionary#132 (packing without flash attention)
    tokenizer = byte_tokenizer()
    texts = ["The Ob is long.", "Como?", "zzzz 9999 !!!!"]
    rows = tokenize_dataset(datasets.Dataset.from_dict({"text": texts}), tokenizer, packing=True, max_length=128)
    ce, model = ce_of("Llama", next(iter(make_dataloader(rows, batch_size=1, shuffle=False))), tokenizer)
    encoded = [[1, *tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in texts]
    assert ce == pytest.approx(row_losses(model, [(row, row) for row in encoded]), rel=1e-4)


@pytest.mark.parametrize("column", ["assistant_masks", "completion_mask"])
def test_a_mask_of_the_answers_beside_ids_is_what_is_learned(column: str) -> None:
    # huggingface/trl#3781, #6037: the masks were discarded, and the whole row was learned
    rows = [{"input_ids": row, column: [int(place >= 3) for place in range(len(row))]} for row in IDS]
    done = outcome_of(lambda: ce_of("Llama", rows, byte_tokenizer()))
    if not done.names(column):
        ce, model = done.value
        answers = [(row, [token if place >= 3 else -100 for place, token in enumerate(row)]) for row in IDS]
        assert ce == pytest.approx(row_losses(model, answers), rel=1e-4)


def test_a_mask_of_the_answers_in_a_batch_of_tensors_is_what_is_learned() -> None:
    # huggingface/trl#6037: "mask columns but no labels ... would train on the full sequence"
    row = IDS[0]
    mask = torch.tensor([[0, 0, 0, 1, 1, 1]])
    done = outcome_of(lambda: ce_of("Llama", {"input_ids": torch.tensor([row]), "completion_mask": mask}))
    if not done.names("completion_mask"):
        ce, model = done.value
        assert ce == pytest.approx(row_losses(model, [(row, [-100] * 3 + row[3:])]), rel=1e-4)


def test_padding_that_rows_of_ids_bring_along_is_not_learned() -> None:
    # huggingface/transformers#7135: padded tokens of pre-tokenized rows were part of the loss
    rows = [
        {"input_ids": row + [0] * (8 - len(row)), "attention_mask": [1] * len(row) + [0] * (8 - len(row))}
        for row in IDS
    ]
    tokenizer = byte_tokenizer()
    read = tokenize_dataset(datasets.Dataset.from_list(rows), tokenizer)
    done = outcome_of(lambda: ce_of("Llama", next(iter(make_dataloader(read, batch_size=3, shuffle=False))), tokenizer))
    if not done.names("attention_mask"):
        ce, model = done.value
        assert ce == pytest.approx(row_losses(model, [(row, row) for row in IDS]), rel=1e-4)


def test_masks_that_number_the_rows_of_a_block_are_honoured_or_refused() -> None:
    # OpenRLHF/OpenRLHF#377: attention_mask [1, 1, 1, 2, 2, 2] of patched flash attention
    flat = [token for row in IDS for token in row]
    numbers = [number for number, row in enumerate(IDS, start=1) for _ in row]
    batch = {"input_ids": torch.tensor([flat]), "attention_mask": torch.tensor([numbers])}
    done = outcome_of(lambda: ce_of("Llama", batch))
    if not done.names("attention_mask"):
        ce, model = done.value
        assert ce == pytest.approx(row_losses(model, [(row, row) for row in IDS]), rel=1e-4)


def test_the_lengths_that_trl_writes_beside_packed_ids_are_not_dropped_in_silence() -> None:
    # huggingface/trl#4632: pack_dataset's seq_lengths say where rows of a block end
    flat = [token for row in IDS for token in row]
    rows = [{"input_ids": flat, "seq_lengths": [len(row) for row in IDS]}]
    done = outcome_of(lambda: ce_of("Llama", rows, byte_tokenizer()))
    if not done.names("seq_lengths"):
        ce, model = done.value
        assert ce == pytest.approx(row_losses(model, [(row, row) for row in IDS]), rel=1e-4)
