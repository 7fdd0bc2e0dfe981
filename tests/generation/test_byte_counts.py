"""The bytes that scored tokens stand for, against the bytes of the strings themselves."""

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from apt_model.data.batch import Batch, to_batch
from apt_model.data.encode import encode
from apt_model.data.notices import untold
from apt_model.generation.byte_counts import scored_bytes

MIXED = ["the cat 互联网 👍🏽 done", "好", "é 🎓 ﬁn", "plain"]


@pytest.mark.parametrize("text", MIXED)
def test_a_whole_text_counts_all_its_bytes_and_its_special_tokens_none(text: str, byte_tokenizer: Any) -> None:
    assert len(byte_tokenizer(text)["input_ids"]) >= len(text.split())
    batch = to_batch([text, "x" * 30], tokenizer=byte_tokenizer)
    assert scored_bytes(batch, byte_tokenizer).tolist() == [len(text.encode()), 30]


def test_without_a_start_token_the_first_token_is_not_scored(byte_tokenizer: Any) -> None:
    ids = byte_tokenizer("cat 👍")["input_ids"]
    first = len(byte_tokenizer.decode(ids[:1]).encode())
    assert scored_bytes(to_batch(torch.tensor([ids])), byte_tokenizer).tolist() == [len("cat 👍".encode()) - first]


def test_of_a_prompt_no_byte_counts(byte_tokenizer: Any) -> None:
    batch = to_batch([{"prompt": "网 the", "completion": " cat 👍🏽"}], tokenizer=byte_tokenizer)
    assert scored_bytes(batch, byte_tokenizer).tolist() == [len(" cat 👍🏽".encode())]


def test_two_stretches_that_are_scored_add_up(byte_tokenizer: Any) -> None:
    ids = byte_tokenizer("the cat sat on the 互联网")["input_ids"]
    labels = list(ids)
    for at in range(len(ids)):
        if at < 2 or len(ids) - 5 < at < len(ids) - 2:
            labels[at] = -100
    batch = to_batch({"input_ids": [ids], "labels": [labels]})
    ends = [len(byte_tokenizer.decode(ids[:end]).rstrip("\ufffd").encode()) for end in (2, len(ids) - 4, len(ids) - 2)]
    whole = len("the cat sat on the 互联网".encode())
    assert scored_bytes(batch, byte_tokenizer).tolist() == [ends[1] - ends[0] + whole - ends[2]]


def test_a_split_character_counts_where_it_is_completed(byte_tokenizer: Any) -> None:
    ids = encode(["🦉"], byte_tokenizer, 99, end=False)[0]
    assert len(ids) >= 4  # the start token, and the owl in pieces
    counts = []
    for given in range(1, len(ids)):
        labels = [-100] * given + ids[given:]
        counts.append(int(scored_bytes(to_batch({"input_ids": [ids], "labels": [labels]}), byte_tokenizer)))
    assert counts == [4] * (len(ids) - 1)
    cut = to_batch(torch.tensor([ids[:-1]]))
    assert scored_bytes(cut, byte_tokenizer).tolist() == [0]


def test_padding_on_the_left_changes_nothing(byte_tokenizer: Any) -> None:
    ids = encode(["好 cat"], byte_tokenizer, 99)[0]
    right = to_batch({"input_ids": torch.tensor([[*ids, 0, 0]]), "attention_mask": [[1] * len(ids) + [0, 0]]})
    left = to_batch({"input_ids": torch.tensor([[0, 0, *ids]]), "attention_mask": [[0, 0] + [1] * len(ids)]})
    assert scored_bytes(right, byte_tokenizer).tolist() == scored_bytes(left, byte_tokenizer).tolist() == [7]


def test_the_labels_are_what_is_spelled_where_they_differ_from_the_ids(byte_tokenizer: Any) -> None:
    labels = torch.tensor([byte_tokenizer("好cat 网")["input_ids"]])
    ids = torch.full_like(labels, byte_tokenizer("x")["input_ids"][0])
    first = len(byte_tokenizer.decode(labels[0, :1]).rstrip("\ufffd").encode())
    for mask in (torch.ones_like(ids), torch.tensor([[1] * (ids.shape[1] - 2) + [0, 0]])):
        batch = Batch(input_ids=ids, attention_mask=mask, labels=labels)
        assert scored_bytes(batch, byte_tokenizer).tolist() == [len("好cat 网".encode()) - first]


def test_a_batch_without_a_label_stands_for_nothing(byte_tokenizer: Any) -> None:
    assert scored_bytes(to_batch([""], tokenizer=byte_tokenizer, tell=untold), byte_tokenizer).tolist() == [0]


def test_sentencepiece_with_byte_fallback_counts_the_same(tmp_path: Any) -> None:
    """Llama's kind: a space is put before the text, bytes stand for characters that the vocabulary lacks."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocabulary |= {piece: 259 + at for at, piece in enumerate(["▁", "a", "b", "c", "▁a"])}
    made = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("abc", "a 中 b", "a🎓"):
        assert scored_bytes(to_batch([text], tokenizer=tokenizer), tokenizer).tolist() == [len(text.encode())]
