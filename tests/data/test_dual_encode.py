"""A row in the tokens of two tokenizers, and where they stand for the same text."""

import copy
from typing import Any

import pytest
import torch

from apt_model.data.batch import to_batch
from apt_model.data.dual_encode import Pair, encode_for_both
from apt_model.data.encode import encode_rows
from apt_model.data.notices import untold
from apt_model.errors import DataError
from tests.conftest import TEMPLATE
from tests.data.test_token_text import byte_level

OTHER = byte_level()  # its template adds no role, and turns end otherwise
OTHER.chat_template = (
    "{% for m in messages %}{{ '<s>' + m['content'] | trim + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>' }}{% endif %}"
)


def texts(pair: Pair, mine: Any, theirs: Any) -> list[tuple[str, str]]:
    return [
        (
            mine.decode(pair.ids[s.left : s.left + s.left_count]),
            theirs.decode(pair.teachers[s.right : s.right + s.right_count]),
        )
        for s in pair.spans
    ]


@pytest.mark.parametrize(
    ("row", "learned"),
    [
        ({"text": "the cat, 人工"}, "the cat, 人工</s>"),
        ({"prompt": "the cat", "completion": " is, 人工"}, " is, 人工</s>"),
        ({"prompt": "the cat", "completion": ""}, "</s>"),
    ],
)
def test_what_is_learned_is_aligned_to_its_end_and_nothing_else(
    row: dict[str, str], learned: str, tokenizer: Any
) -> None:
    pair = encode_for_both(row, tokenizer, OTHER, 64)
    assert (pair.ids, pair.labels) == encode_rows([row], tokenizer, 64)[0][:2]
    assert pair.teachers == encode_rows([row], OTHER, 64)[0][0]
    said = texts(pair, tokenizer, OTHER)
    assert "".join(one for one, _ in said) == "".join(two for _, two in said) == learned
    assert all(span.left > 0 and span.right > 0 for span in pair.spans)


def test_a_first_token_that_nothing_comes_before_is_in_no_span(tokenizer: Any) -> None:
    bare = copy.deepcopy(OTHER)
    bare.bos_token = None
    pair = encode_for_both({"text": "abc"}, tokenizer, bare, 64)
    assert pair.teachers[0] == bare.encode("a")[0]
    assert texts(pair, tokenizer, bare)[0] == ("b", "b")


def test_a_row_that_was_cut_is_aligned_as_far_as_it_goes(tokenizer: Any) -> None:
    pair = encode_for_both({"text": "the cat, 人工 and more"}, tokenizer, OTHER, 6)
    assert len(pair.ids) == 6
    said = texts(pair, tokenizer, OTHER)
    assert [one for one, _ in said] == [two for _, two in said]
    assert pair.teachers[-1] == pair.teachers[pair.spans[-1].right + pair.spans[-1].right_count - 1]
    assert "".join(one for one, _ in said).startswith("the")
    assert "</s>" not in "".join(one for one, _ in said)


def test_of_chats_the_assistants_words_are_aligned_in_both_templates(tokenizer: Any) -> None:
    mine = copy.deepcopy(tokenizer)
    mine.chat_template = TEMPLATE
    chat = [
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "人工 is"},
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "cat"},
    ]
    pair = encode_for_both({"messages": chat}, mine, OTHER, 200)
    said = texts(pair, mine, OTHER)
    assert [one for one, _ in said] == [two for _, two in said]
    assert "".join(one for one, _ in said) == "人工 is</s>cat</s>"
    learned = [index for s in pair.spans for index in range(s.left, s.left + s.left_count)]
    assert all(pair.labels[index] == pair.ids[index] for index in learned)


def test_what_stands_behind_a_turn_is_aligned_only_where_it_ends_one_in_both(tokenizer: Any) -> None:
    mine, other = copy.deepcopy(tokenizer), copy.deepcopy(OTHER)
    mine.chat_template = TEMPLATE
    other.chat_template = (
        "{% for m in messages %}{{ '<s>' + m['content'] + '!' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<s>' }}{% endif %}"
    )
    chat = [
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "the is"},
        {"role": "user", "content": "and"},
        {"role": "assistant", "content": "cat"},
    ]
    pair = encode_for_both({"messages": chat}, mine, other, 200)
    said = texts(pair, mine, other)
    assert [one for one, _ in said] == [two for _, two in said]
    assert "".join(one for one, _ in said) == "the iscat"


def test_half_a_character_is_a_token_of_its_own(tokenizer: Any) -> None:
    other = copy.deepcopy(OTHER)
    pair = encode_for_both({"text": "a😀b"}, other, other, 64)
    count = len(other("a😀b", add_special_tokens=False)["input_ids"])
    assert count > 3  # the emoji is cut
    assert [span.left_count for span in pair.spans] == [1] * (count + 1)


def test_a_batch_holds_both_padded_with_the_spans_of_each_row(tokenizer: Any) -> None:
    rows = [{"text": "the cat"}, {"text": ""}, {"text": "人工"}]
    batch = to_batch(rows, tokenizer=tokenizer, teacher_tokenizer=OTHER, tell=untold)
    plain = to_batch(rows, tokenizer=tokenizer, tell=untold)
    assert torch.equal(batch.input_ids, plain.input_ids)
    assert torch.equal(batch.labels, plain.labels)
    assert batch.teachers is not None
    theirs = to_batch(rows, tokenizer=OTHER, tell=untold)
    assert torch.equal(batch.teachers.input_ids, theirs.input_ids)
    assert torch.equal(batch.teachers.attention_mask, theirs.attention_mask)
    assert batch.teachers.spans[:, 0].tolist() == sorted(batch.teachers.spans[:, 0].tolist())
    covered = batch.teachers.covers(batch.labels.shape[1])
    expected = batch.attention_mask.bool()
    expected[:, 0] = False  # the start tokens
    assert torch.equal(covered, expected)
    moved = batch.to(torch.device("meta"))
    assert moved.teachers is not None
    assert moved.teachers.spans.device.type == "meta"


@pytest.mark.parametrize("raw", [{"input_ids": [[1, 2]]}, torch.tensor([[1, 2]]), [{"input_ids": [1, 2]}]])
def test_token_ids_cannot_be_aligned(raw: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="token ids cannot be re-encoded for a teacher with another tokenizer"):
        to_batch(raw, tokenizer=tokenizer, teacher_tokenizer=OTHER)


def test_rows_without_a_token_give_a_batch_without_a_label(tokenizer: Any) -> None:
    batch = to_batch([{"text": ""}], tokenizer=tokenizer, teacher_tokenizer=OTHER, tell=untold)
    assert batch.label_count == 0
    assert batch.teachers is not None
    assert batch.teachers.spans.shape == (0, 5)
