"""How a chat template asks, and ends an answer, read off what it writes."""

from typing import Any

import pytest

from apt_model.data.answering import has_template, is_asked_in_template, turn_end, with_template
from apt_model.data.batch import to_batch
from apt_model.data.encode import question_ids
from tests.chats import CHATML, LLAMA_2, NO_END, SPECIALS, THINKING, byte_level, chat


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>"),
        (THINKING, "<|im_end|>"),
        (LLAMA_2, "</s>"),
        (CHATML.replace("<|im_end|>", "<|end|><|eot|>"), "<|end|>"),
        (NO_END, None),
        (NO_END.replace("m['content']", "'…'"), None),
        ("{{ raise_exception('only tools') }}", None),
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_the_special_token_behind_the_answer(template: str | None, end: str | None) -> None:
    assert turn_end(byte_level(template)) == (None if end is None else SPECIALS.index(end))


def test_a_tokenizer_that_only_decodes_has_neither_template_nor_end(tokenizer: Any) -> None:
    assert not has_template(object())
    assert turn_end(object()) is None
    assert turn_end(tokenizer) is None


@pytest.mark.parametrize("template", [CHATML, THINKING, LLAMA_2])
def test_a_question_is_asked_as_transformers_renders_it(template: str) -> None:
    tokenizer = byte_level(template)
    asked = chat("Where?", "There.") + chat("And now?")
    expected = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert question_ids(asked, tokenizer) == expected


@pytest.mark.parametrize("template", [CHATML, LLAMA_2])
def test_chats_are_told_from_texts_by_their_tokens(template: str) -> None:
    tokenizer = byte_level(template)
    chats = to_batch(
        [{"messages": chat("A lake?", "Como.")}, {"messages": chat("A town?", "Bath.")}], tokenizer=tokenizer
    )
    texts = to_batch(["A lake? Como.", "user A town?"], tokenizer=tokenizer)
    assert is_asked_in_template([texts, chats], tokenizer)
    assert not is_asked_in_template([texts], tokenizer)
    assert not is_asked_in_template([], tokenizer)
    assert not is_asked_in_template([chats], byte_level(None))


def test_a_text_that_spells_the_template_is_a_chat() -> None:
    tokenizer = byte_level(CHATML)
    prompt = "<|im_start|>user\nA lake?<|im_end|>\n<|im_start|>assistant\n"
    pair, text = {"prompt": prompt, "completion": "Como."}, {"text": f"{prompt}Como.<|im_end|>"}
    for row in (pair, text):
        assert is_asked_in_template([to_batch([row], tokenizer=tokenizer)], tokenizer)


def test_of_two_equal_tokenizers_the_one_with_a_template_serves() -> None:
    chats, plain = byte_level(CHATML), byte_level(None)
    other = byte_level(LLAMA_2)
    assert with_template(plain, chats) is chats
    assert with_template(chats, plain) is chats
    assert with_template(chats, other) is chats
    assert with_template(None, plain) is plain
    assert with_template(plain, None) is plain
    assert with_template(None, None) is None
