"""The text that each token of a card adds, for every kind of tokenizer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from apt_model.data.token_text import TokenTexts, mended

TEXT = ["The cat can't sit. 人工智能, 教育 is fun 😀! It doesn't  end\n\nhere, does it? ünïcode"] * 3
SPECIAL: dict[str, Any] = {"special_tokens": ["<s>", "</s>", "<unk>"], "show_progress": False}


def wrapped(made: Tokenizer) -> PreTrainedTokenizerFast:
    made.add_tokens([AddedToken("<think 思>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=300, initial_alphabet=ByteLevel.alphabet(), **SPECIAL)
    )
    return wrapped(made)


def sentencepiece() -> PreTrainedTokenizerFast:
    """As in Llama 2: spaces are ▁, what is not in the vocabulary is bytes."""
    letters = [*dict.fromkeys("▁" + "".join(TEXT).replace(" ", ""))][:40]
    words = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁c", "▁ca", "▁cat"]
    ranks, merges = {word: i for i, word in enumerate(words)}, [("▁", "c"), ("▁c", "a"), ("▁ca", "t")]
    made = Tokenizer(models.BPE(ranks, merges, byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrapped(made)


def unigram() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.train_from_iterator(TEXT, trainers.UnigramTrainer(vocab_size=80, unk_token="<unk>", **SPECIAL))
    return wrapped(made)


def word_piece() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=True)
    made.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=120, **SPECIAL))
    return wrapped(made)


def suffixes() -> PreTrainedTokenizerFast:
    """As in CLIP: a token says that a word ends, so its piece depends on its place."""
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder(suffix="</w>")
    made.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=120, end_of_word_suffix="</w>", **SPECIAL))
    return wrapped(made)


KINDS = [byte_level, sentencepiece, unigram, word_piece, suffixes]
MADE = {make.__name__: make() for make in KINDS}


@pytest.mark.parametrize("kind", MADE)
@given(data=st.data())
def test_whatever_the_tokens_their_texts_joined_are_the_text(kind: str, data: st.DataObject) -> None:
    tokenizer = MADE[kind]
    ids = data.draw(st.lists(st.integers(-1, len(tokenizer) + 1), max_size=12))
    real = [token for token in ids if 0 <= token < len(tokenizer)]
    text = tokenizer.decode(real, skip_special_tokens=True)
    parts = TokenTexts(tokenizer).split(ids, text)
    assert len(parts) == len(ids)
    assert "".join(parts) == text


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("text", ["The cat can't sit.", "人工 😀!", "ü", "a  b", ""])
def test_a_text_is_split_where_its_tokens_lie(kind: str, text: str) -> None:
    tokenizer = MADE[kind]
    ids = tokenizer.encode(text, add_special_tokens=False)
    said = tokenizer.decode(ids, skip_special_tokens=True)
    parts = TokenTexts(tokenizer).split(ids, said)
    ends, so_far = [len("".join(parts[: n + 1])) for n in range(len(ids))], []
    for count in range(1, len(ids) + 1):  # the longest beginning that no later token changes
        begun = tokenizer.decode(ids[:count], skip_special_tokens=True)
        so_far.append(max(n for n in range(len(begun) + 1) if said[:n] == begun[:n]))
    assert ends == so_far


def test_a_character_of_several_tokens_stands_at_the_last_of_them() -> None:
    tokenizer = byte_level()
    ids = [tokenizer.convert_tokens_to_ids(letter) for letter in "ä½łA"]  # GPT-2's letters for 你 in UTF-8, and A
    token_texts = TokenTexts(tokenizer)
    assert token_texts.split(ids, "你A") == ("", "", "你", "A")
    assert token_texts.split(ids[:2], "�") == ("", "�")
    assert token_texts.names(ids) == ["⟨E4⟩", "⟨BD⟩", "⟨A0⟩", "A"]
    fallback = sentencepiece()
    ids = [fallback.convert_tokens_to_ids(token) for token in ("▁cat", "<0xE4>", "<0xBD>", "<0xA0>", "▁c")]
    assert TokenTexts(fallback).split(ids, "cat你 c") == ("cat", "", "", "你", " c")
    assert TokenTexts(fallback).names(ids) == [" cat", "⟨E4⟩", "⟨BD⟩", "⟨A0⟩", " c"]


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (("��你", "好�"), ("你", "好")),
        (("你�", "�", "�好�", "�们"), ("你▯", "", "好▯", "们")),
        (("�", "��"), ("", "")),
        (("你", "好"), ("你", "好")),
        ((), ()),
    ],
)
def test_pieces_of_characters_are_cut_at_the_ends_and_a_run_of_them_within_is_one_gap(
    parts: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    assert mended(parts) == shown
    assert "".join(mended(["".join(parts)])) == "".join(shown)


def test_special_tokens_have_a_name_but_no_piece_and_ids_that_are_no_token_a_number() -> None:
    for tokenizer in MADE.values():
        token_texts = TokenTexts(tokenizer)
        end, thought, beyond = tokenizer.eos_token_id, len(tokenizer) - 1, len(tokenizer)
        assert token_texts.names([end, beyond, thought]) == ["</s>", f"⟨#{beyond}⟩", token_texts.names([thought])[0]]
        assert token_texts.names([thought])[0].strip() == "<think 思>"
        assert token_texts.split([end, beyond, -100], "") == ("", "", "")


def test_the_first_word_has_no_space_and_the_same_word_later_has() -> None:
    for tokenizer in (sentencepiece(), word_piece()):
        ids = tokenizer.encode("cat cat", add_special_tokens=False)
        parts = TokenTexts(tokenizer).split([tokenizer.bos_token_id, *ids], "cat cat")
        assert "".join(parts[: 1 + len(ids) // 2]) == "cat"
        assert parts[0] == ""


def test_a_tokenizer_that_only_decodes_has_no_token_texts() -> None:
    class DummyTokenizer:
        def decode(self, token_ids: list[int], **kwargs: Any) -> str:
            return f"text (tokens: {len(token_ids)})"

    assert TokenTexts.of(DummyTokenizer()) is None
    assert TokenTexts.of(None) is None
