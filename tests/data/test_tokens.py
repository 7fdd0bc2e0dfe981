"""Prompt and completion in the tokens of the text that they are, with one start and one end token."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from apt_model.data.encode import encode_rows
from apt_model.data.encoded import IGNORED
from tests.chats import CHATML
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


def test_the_next_turns_first_token_is_not_learned_where_the_tokenizer_drops_the_space_before_it() -> None:
    """WordPiece has no token for the line feed between two turns."""
    words = ["[UNK]", "<|im_start|>", "<|im_end|>", "user", "assistant", "a", "b", "c", "d"]
    core = Tokenizer(models.WordPiece(vocab={word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.add_special_tokens([AddedToken(word, special=True) for word in words[1:3]])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[UNK]")
    tokenizer.chat_template = CHATML
    turns = [{"role": role, "content": word} for role, word in zip(("user", "assistant") * 2, "abcd", strict=True)]
    ((ids, labels, _),) = encode_rows([{"messages": turns}], tokenizer, 100)
    assert tokenizer.convert_ids_to_tokens([label for label in labels if label != IGNORED]) == [
        *("b", "<|im_end|>", "d", "<|im_end|>")
    ]
    assert len(ids) == 16


def test_a_tokenizer_without_a_decoder_encodes_pairs() -> None:
    core = Tokenizer(models.WordLevel(vocab={"<unk>": 0, "A": 1, "river": 2, "Como": 3}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert encode_rows([{"prompt": "A river", "completion": " Como"}], tokenizer, 9)[0][:2] == (
        [1, 2, 3],
        [-100, -100, 3],
    )


def test_columns_for_a_chat_template_are_told_where_a_row_is_learned_as_text() -> None:
    told: list[tuple[str, dict[str, object]]] = []
    tokenizer = byte_level()  # without a template, as pairs of strings do not need one
    row = {"prompt": "Q", "completion": "A", "system": "Be terse.", "tools": [{"name": "f"}]}
    encode_rows([row], tokenizer, 99, tell=lambda key, /, **values: told.append((key, values)))
    assert told == [("text_columns", {"names": "tools, system"})]
    question = {"question": "Q", "answer": "A", "system": "Be terse.", "tools": [{"name": "f"}]}
    encode_rows([question], tokenizer, 99, tell=lambda key, /, **values: told.append((key, values)))
    assert told[-1] == ("text_columns", {"names": "tools"})
