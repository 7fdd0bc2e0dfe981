"""Greedy answers, many at a time, against the same thing done token by token."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from apt_model.data.encode import prompt_and_reference
from apt_model.errors import DataError, ModelError
from apt_model.models.generate import answer, end_ids, generate

TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ' ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)
PROMPTS = [[1, 5, 6, 7, 8, 9], [1, 20], [1, 30, 31, 32], [1, 4, 4]]


@torch.no_grad()
def one_by_one(model: Any, prompt: list[int], new_tokens: int) -> list[int]:
    """argmax, again and again, without a cache, up to the end of text."""
    ids = list(prompt)
    for _ in range(new_tokens):
        token = int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == 2:
            break
        ids.append(token)
    return ids[len(prompt) :]


def tiny_gpt2() -> Any:
    """Positions that are learned, and so are limited."""
    torch.manual_seed(4)
    sizes = {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.5, bos_token_id=1, eos_token_id=2)).eval()
    model.generation_config.eos_token_id = 2
    return model


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_together_each_prompt_gets_the_answer_it_gets_alone(kind: str, teacher: Any, tokenizer: Any) -> None:
    model = teacher if kind == "llama" else tiny_gpt2()
    said = generate(model, tokenizer, PROMPTS, new_tokens=10)
    assert said == [one_by_one(model, prompt, 10) for prompt in PROMPTS]
    assert len({tuple(row) for row in said}) > 1
    assert answer(model, tokenizer, PROMPTS, max_new_tokens=10) == [
        tokenizer.decode(row, skip_special_tokens=True).strip() for row in said
    ]


def test_an_answer_ends_with_the_end_of_text_while_others_go_on(teacher: Any, tokenizer: Any) -> None:
    rows = generate(teacher, tokenizer, PROMPTS, new_tokens=10)
    stop = max(rows, key=len)[3]
    assert any(stop not in row for row in rows)
    teacher.generation_config.eos_token_id = [2, stop]
    assert generate(teacher, tokenizer, PROMPTS, new_tokens=10) == [
        row[: row.index(stop)] if stop in row else row for row in rows
    ]
    assert end_ids(teacher, tokenizer) == sorted([2, stop])
    assert len(generate(teacher, tokenizer, PROMPTS[:1], new_tokens=10, ends=False)[0]) == 10


def test_a_models_own_settings_do_not_make_it_less_greedy_and_stay_as_they_are(teacher: Any, tokenizer: Any) -> None:
    plain = generate(teacher, tokenizer, PROMPTS, new_tokens=8)
    own = teacher.generation_config
    own.update(do_sample=True, temperature=3.0, top_k=5, repetition_penalty=5.0, num_beams=3, max_length=7)
    before = copy.deepcopy(own.to_dict())
    assert generate(teacher, tokenizer, PROMPTS, new_tokens=8) == plain
    assert teacher.generation_config is own
    assert own.to_dict() == before


def test_without_a_pad_token_the_end_pads(teacher: Any, tokenizer: Any) -> None:
    padless = copy.deepcopy(tokenizer)
    padless.pad_token = None
    assert generate(teacher, padless, PROMPTS, new_tokens=6) == generate(teacher, tokenizer, PROMPTS, new_tokens=6)


def test_where_positions_are_few_a_long_prompt_is_answered_alone_in_what_is_left(tokenizer: Any) -> None:
    model = tiny_gpt2()
    prompts = [[1, 7], [1, *range(20, 32)], [1, 9, 9]]
    alone = [one_by_one(model, prompt, room) for prompt, room in zip(prompts, (10, 3, 10), strict=True)]
    expected = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in alone]
    assert answer(model, tokenizer, prompts, max_new_tokens=10) == expected
    with pytest.raises(DataError, match=r"prompt is too long for the teacher; got 16 tokens, expected below 16"):
        answer(model, tokenizer, [list(range(16))], max_new_tokens=10, role="teacher")


def test_a_model_that_cannot_generate_is_refused_in_one_line(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=r"the student cannot answer prompts; got Linear.*max_new_tokens=0"):
        answer(nn.Linear(2, 2), tokenizer, PROMPTS, max_new_tokens=3)


@pytest.fixture
def chatty(tokenizer: Any) -> Any:
    made = copy.deepcopy(tokenizer)
    made.chat_template = TEMPLATE
    return made


def test_a_chat_asks_what_stands_before_the_assistants_last_turn(chatty: Any) -> None:
    chat = [("user", "ab"), ("assistant", "c"), ("user", "d"), ("assistant", "人工")]
    messages = [{"role": role, "content": content} for role, content in chat]
    asked = prompt_and_reference({"messages": messages}, chatty)
    assert asked == (chatty("<s>user ab</s><s>assistant c</s><s>user d</s><s>assistant ")["input_ids"], "人工")
    told = [{"from": "human", "value": "ab"}, {"from": "gpt", "value": "c"}]
    assert prompt_and_reference({"messages": told}, chatty) == (chatty("<s>user ab</s><s>assistant ")["input_ids"], "c")


def test_a_pair_asks_its_prompt_with_the_start_token_and_without_an_end(tokenizer: Any) -> None:
    row = {"prompt": "ab", "completion": "人工"}
    assert prompt_and_reference(row, tokenizer) == ([1, *tokenizer("ab")["input_ids"]], "人工")


@pytest.mark.parametrize(
    "row",
    [
        {"text": "ab"},
        {"input_ids": [1, 2], "labels": [1, 2]},
        {"messages": [{"role": "assistant", "content": "c"}]},
        {"messages": [{"role": "user", "content": "c"}, {"role": "user", "content": "d"}]},
    ],
)
def test_what_asks_nothing_has_no_prompt(row: dict[str, Any], chatty: Any) -> None:
    assert prompt_and_reference(row, chatty) is None


def test_a_prompt_of_no_token_at_all_asks_nothing(tokenizer: Any) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    assert prompt_and_reference({"prompt": "", "completion": "a"}, bare) is None
