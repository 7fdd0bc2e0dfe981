"""Rows taken from a trainer's data, and a comparison of both models on them that leaves no trace."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from apt_model.config import LessonConfig
from apt_model.data.batch import to_batch
from apt_model.errors import DataError
from apt_model.integrations.probe import FixedRows, first_rows

CPU = torch.device("cpu")


@pytest.fixture
def make_probe(teacher: Any, student: Any) -> Callable[..., FixedRows]:
    def make(batch: Any, **how: Any) -> FixedRows:
        config = LessonConfig.from_dict(how)
        return FixedRows(batch, teacher=teacher, student=student, config=config, device=CPU)

    return make


def taken(rows: list[Any], collate: Any, tokenizer: Any = None) -> Any:
    loader = DataLoader(rows, batch_size=2, shuffle=True, collate_fn=collate)
    return first_rows(loader, tokenizer=tokenizer, max_length=512, device=CPU)


def test_both_are_asked_in_eval_mode_and_every_module_gets_its_own_mode_back(
    make_probe: Callable[..., FixedRows], teacher: Any, student: Any, tokenizer: Any
) -> None:
    for model in (teacher, student):
        model.model.layers[0].self_attn.attention_dropout = 0.5
    probe = make_probe(to_batch(["人工智能是网络", "the net"], tokenizer=tokenizer))
    in_eval = [probe.compare(student, turn=turn, say=lambda *a, **k: None) for turn in (0, 1, 2)]
    student.train()
    student.model.embed_tokens.eval()
    teacher.train()
    in_train = [probe.compare(student, turn=turn, say=lambda *a, **k: None) for turn in (0, 1, 2)]
    assert [one.loss for one in in_train] == [one.loss for one in in_eval]
    assert in_eval[0].loss == in_eval[2].loss != in_eval[1].loss
    assert student.training
    assert student.model.layers[0].training
    assert not student.model.embed_tokens.training
    assert teacher.training
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_padding_on_either_side_changes_nothing(make_probe: Callable[..., FixedRows], student: Any) -> None:
    left = {"input_ids": [[0, 0, 5, 6, 7, 8]], "attention_mask": [[0, 0, 1, 1, 1, 1]]}
    right = {"input_ids": [[5, 6, 7, 8, 0]], "attention_mask": [[1, 1, 1, 1, 0]]}
    one, other = (make_probe(to_batch(raw)).compare(student, turn=0, say=lambda *a, **k: None) for raw in (left, right))
    assert one.loss == other.loss
    assert one.readout.card.input_ids == other.readout.card.input_ids == [5, 6, 7, 8]


def test_long_rows_are_cut_and_rows_without_a_label_left_out(
    make_probe: Callable[..., FixedRows], student: Any
) -> None:
    raw = {"input_ids": [[5] * 40, [6] * 40], "labels": [[-100] * 40, [6] * 40]}
    probe = make_probe(to_batch(raw), max_length=10)
    assert len(probe) == 1
    assert probe.compare(student, turn=5, say=lambda *a, **k: None).readout.card.input_ids == [6] * 10


def test_of_a_batch_of_chosen_and_rejected_answers_the_chosen_are_taken_without_their_prompts() -> None:
    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        answers = [row["prompt"] + row[kind] for kind in ("chosen", "rejected") for row in rows]
        ids = torch.tensor(answers)
        mask = torch.tensor([[0, 0, 1, 1]] * len(answers))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}

    batch = taken([{"prompt": [5, 6], "chosen": [7, i], "rejected": [9, 9]} for i in (10, 11, 12)], collate)
    assert batch.input_ids.tolist() == [[5, 6, 7, 10], [5, 6, 7, 11], [5, 6, 7, 12]]
    assert batch.labels.tolist() == [[-100, -100, 7, 10], [-100, -100, 7, 11], [-100, -100, 7, 12]]


def test_prompts_alone_are_read_as_texts(chatty: Any) -> None:
    texts = taken([{"prompt": "ab"}, {"prompt": "c"}], list, chatty)
    assert chatty.batch_decode(texts.input_ids, skip_special_tokens=True) == ["ab", "c"]
    chats = taken([{"prompt": [{"role": "user", "content": "ab"}]}], list, chatty)
    assert chatty.batch_decode(chats.input_ids) == ["ab"]
    assert chats.labels.tolist() == chats.input_ids.tolist()
    answered = taken([{"prompt": "ab", "completion": "c"}], list, chatty)
    assert answered.labels[0].tolist() == [-100, -100, -100, *chatty("c")["input_ids"], chatty.eos_token_id]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "the data is empty"),
        ([{"pixels": 1}], r"no cards can be made.*row has no column to learn from.*pass probe="),
    ],
)
def test_data_without_text_is_refused(rows: list[Any], said: str, tokenizer: Any) -> None:
    loader = DataLoader(rows, collate_fn=list)
    with pytest.raises(DataError, match=said):
        first_rows(loader, tokenizer=tokenizer, max_length=512, device=CPU)
