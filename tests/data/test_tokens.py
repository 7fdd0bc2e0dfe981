"""Prompt and completion in the tokens of the text that they are, with one start and one end token."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, processors

from apt_model.data.encode import encode_rows
from apt_model.data.encoded import IGNORED
from tests.data.test_token_text import MADE, byte_level, sentencepiece

TEXTS = st.text(st.sampled_from("the cat. 人工😀!\n"), max_size=12)


def legacy() -> Any:
    """As Llama 1 and 2 at first: a space is put before every text, by the normalizer."""
    made = sentencepiece()
    made.backend_tokenizer.pre_tokenizer = None
    made.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


def prefixed() -> Any:
    """As the first GPT-2 port: a space is put before every text that has none."""
    made = byte_level()
    made.backend_tokenizer.pre_tokenizer.add_prefix_space = True
    return made


TOKENIZERS = {**MADE, "legacy": legacy(), "prefixed": prefixed()}


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(prompt=TEXTS, completion=TEXTS)
def test_a_pair_has_the_tokens_of_its_text_cut_at_the_prompt(kind: str, prompt: str, completion: str) -> None:
    """Right are transformers' ids of the text, and its offsets: what ends behind the prompt is the completion's."""
    tokenizer = TOKENIZERS[kind]
    ((ids, labels, _),) = encode_rows([{"prompt": prompt, "completion": completion}], tokenizer, 100)
    right = tokenizer(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
    assert ids == ([tokenizer.bos_token_id, *right["input_ids"], tokenizer.eos_token_id] if prompt + completion else [])
    learned = [
        token for token, (_, end) in zip(right["input_ids"], right["offset_mapping"], strict=True) if end > len(prompt)
    ]
    if prompt and completion.strip() and kind in ("sentencepiece", "legacy", "byte_level", "prefixed"):
        assert [label for label in labels if label != IGNORED][-len(learned) - 1 :] == [
            *learned,
            tokenizer.eos_token_id,
        ]


@pytest.mark.parametrize("kind", ["sentencepiece", "legacy", "byte_level", "prefixed"])
def test_no_space_is_invented_between_prompt_and_completion(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ((ids, labels, _),) = encode_rows([{"prompt": "the", "completion": "cat"}], tokenizer, 100)
    assert tokenizer.decode(ids[1:-1]).strip() == "thecat"
    assert tokenizer.decode([label for label in labels[:-1] if label != IGNORED]).strip() == "cat"
    ((ids, _, _),) = encode_rows([{"prompt": "the", "completion": " cat"}], tokenizer, 100)
    assert tokenizer.decode(ids[1:-1]).strip() == "the cat"


@pytest.mark.parametrize("adds", ["nothing", "start", "both"])
@pytest.mark.parametrize(
    "row",
    [
        {"text": "<s>[INST] the [/INST] cat</s>"},
        {"text": "the cat</s>"},
        {"text": "<s>the cat"},
        {"text": "<s><s>the cat</s></s>"},
        {"prompt": "<s>[INST] the [/INST]", "completion": " cat</s>"},
        {"prompt": "<s>the", "completion": " cat"},
    ],
)
def test_there_is_one_start_and_one_end_token_whatever_the_text_spells_out(row: dict[str, str], adds: str) -> None:
    tokenizer = copy.deepcopy(byte_level())
    single = {"nothing": None, "start": "<s> $A", "both": "<s> $A </s>"}[adds]
    if single:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
        )
    ((ids, labels, _),) = encode_rows([row], tokenizer, 100)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert (ids[0], ids[-1], labels[-1]) == (start, end, end)
    assert (ids.count(start), ids.count(end)) == (1, 1)
    assert "the" in tokenizer.decode(ids)
    if "prompt" in row:
        assert tokenizer.decode([label for label in labels if label != IGNORED]) == " cat</s>"
