"""Two tokenizations of a text, cut where both end at the same byte."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.data.alignment import Range, Span, align, alignment_table, common_beginnings, place, shared_tokens
from apt_model.data.token_text import TokenTexts
from apt_model.errors import ConfigError
from tests.data.test_token_text import byte_level, sentencepiece, suffixes, unigram, word_piece

MIXED = "今天 weather 很好 😀，naïve café！\n\n The cat can't  sit. 人工智能"
LETTERS = st.text(st.sampled_from("aeT c'.,! \n今人工智能好😀ïé👨‍👩"), max_size=12)
KINDS = {"byte level": byte_level(), "sentencepiece": sentencepiece(), "unigram": unigram(), "WordPiece": word_piece()}


def placed(text: str, tokenizer: Any) -> list[Range]:
    _, found = place(text, tokenizer, TokenTexts(tokenizer))
    assert None not in found
    return [one for one in found if one is not None]


@given(text=LETTERS)
@pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])
def test_tokens_that_keep_every_byte_cover_the_text_without_a_gap(kind: str, text: str) -> None:
    ranges = placed(text, KINDS[kind])
    ends = [0, *(end for _, end in ranges)]
    assert [start for start, _ in ranges] == ends[:-1]
    assert ends[-1] == len(text.encode())


def test_a_token_of_whole_characters_stands_for_what_it_decodes_to() -> None:
    for kind, tokenizer in KINDS.items():
        ids, ranges = place(MIXED, tokenizer, TokenTexts(tokenizer))
        said = [MIXED.encode()[r[0] : r[1]].decode("utf-8", "replace") for r in ranges if r is not None]
        compared = 0
        for token, text in zip(ids, said, strict=True):
            own = tokenizer.decode([token]).strip()
            if own.isalnum() and token != tokenizer.unk_token_id:
                assert own.removeprefix("##") == text.strip(), kind
                compared += 1
        assert compared > 4, kind


def test_bytes_are_those_that_trl_finds() -> None:
    trl = pytest.importorskip("trl.experimental.utils")
    tokenizer = KINDS["byte level"]
    ((ids, offsets),) = trl.encode_with_byte_offsets(tokenizer.backend_tokenizer, [MIXED])
    assert place(MIXED, tokenizer, TokenTexts(tokenizer)) == (ids, offsets)


def test_a_tokenizer_without_bytes_or_offsets_is_refused() -> None:
    class Deaf:
        is_fast = False
        all_special_ids: tuple[int, ...] = ()

        def __len__(self) -> int:
            return 9

        def __call__(self, texts: list[str], **how: Any) -> Any:
            return {"input_ids": [[1, 2]]}

        def encode(self, text: str, **how: Any) -> list[int]:
            return [1]

        def decode(self, ids: list[int], **how: Any) -> str:
            return "?" * len(ids)

        def convert_ids_to_tokens(self, token: int) -> str:
            return "?"

    with pytest.raises(ConfigError, match="cannot map its tokens to the text; got Deaf"):
        place("abc", Deaf(), TokenTexts(Deaf()))


CUTS = st.sets(st.integers(1, 29), max_size=12).map(lambda cuts: [0, *sorted(cuts), 30])


def ranges_of(cuts: list[int]) -> list[Range | None]:
    return list(pairwise(cuts))


@given(one=CUTS, other=CUTS)
def test_spans_are_what_lies_between_the_ends_that_both_have(one: list[int], other: list[int]) -> None:
    both = sorted(set(one) & set(other))
    expected = [
        Span(one.index(a), one.index(b) - one.index(a), other.index(a), other.index(b) - other.index(a))
        for a, b in pairwise(both)
    ]
    assert align(ranges_of(one), ranges_of(other)) == expected


@given(one=CUTS, other=CUTS)
def test_spans_are_the_groups_of_trl(one: list[int], other: list[int]) -> None:
    loss = pytest.importorskip("trl.experimental.gold.gold_trainer").ULDLoss
    groups = loss._align_by_byte_offsets(ranges_of(one), ranges_of(other))
    spans = align(ranges_of(one), ranges_of(other))
    ours = [list(range(s.left, s.left + s.left_count)) for s in spans]
    theirs = [list(range(s.right, s.right + s.right_count)) for s in spans]
    assert (ours, theirs) == groups


@given(one=CUTS, other=CUTS, gone=st.sets(st.integers(0, 12)), other_gone=st.sets(st.integers(0, 12)))
def test_bytes_that_one_side_lacks_are_in_no_span(
    one: list[int], other: list[int], gone: set[int], other_gone: set[int]
) -> None:
    mine = [None if i in gone else r for i, r in enumerate(ranges_of(one))]
    theirs = [None if i in other_gone else r for i, r in enumerate(ranges_of(other))]
    for span in align(mine, theirs):
        bytes_of = [
            [byte for r in side[first : first + count] for byte in range(*(r or (0, 0)))]
            for side, first, count in ((mine, span.left, span.left_count), (theirs, span.right, span.right_count))
        ]
        assert bytes_of[0] == bytes_of[1] != []


def test_a_gap_on_one_side_costs_only_its_own_span() -> None:
    one: list[Range | None] = [(0, 2), (2, 4), (4, 6), (6, 8)]
    other: list[Range | None] = [(0, 2), (2, 3), None, (4, 6), (6, 7), (7, 8)]
    assert align(one, other) == [Span(0, 1, 0, 1), Span(2, 1, 3, 1), Span(3, 1, 4, 2)]


def test_a_side_that_lacks_the_middle_of_a_token_does_not_meet_it() -> None:
    assert align([(0, 2), (4, 6)], [(0, 6)]) == []


def test_sentencepieces_own_space_counts_nothing_for_a_tokenizer_without_offsets_either() -> None:
    class Slow:
        is_fast = False

        def __call__(self, texts: list[str], **how: Any) -> Any:
            return KINDS["sentencepiece"](texts, **how)

    token_texts = TokenTexts(KINDS["sentencepiece"])
    assert place("cat 人x", Slow(), token_texts) == place("cat 人x", KINDS["sentencepiece"], token_texts)


def test_shared_tokens_are_the_same_text_and_the_ends_of_text(tokenizer: Any) -> None:
    other = KINDS["byte level"]
    pairs = shared_tokens(tokenizer, other)
    assert (tokenizer.eos_token_id, other.eos_token_id) in pairs
    texts = [(tokenizer.decode([one]), other.decode([two])) for one, two in pairs if one != tokenizer.eos_token_id]
    assert [one for one, _ in texts] == [two for _, two in texts]
    assert {"a", "z", ",", " "} <= {one for one, _ in texts}
    assert not {"<pad>", "<s>", "<unk>"} & {one for one, _ in texts}


def test_tokens_begin_with_the_longest_text_that_both_have() -> None:
    one, other = KINDS["byte level"], KINDS["sentencepiece"]
    count, mine, theirs = common_beginnings(one, other)
    shared = shared_tokens(one, other)
    assert count == len(shared)
    assert [(mine[a], theirs[b]) for a, b in shared] == [(number, number) for number in range(count)]
    texts = [one.decode([a]) for a, _ in shared]
    known = set(texts)
    compared = 0
    for token, number in mine.items():
        text = one.decode([token])
        if "\ufffd" in text + texts[number] or token == one.eos_token_id:
            continue
        assert text.startswith(texts[number])
        assert not any(text[:size] in known for size in range(len(texts[number]) + 1, len(text) + 1))
        compared += text != texts[number]
    assert compared > 10
    assert not {one.bos_token_id, one.unk_token_id} & mine.keys()


def test_a_table_shows_where_two_tokenizers_meet() -> None:
    assert alignment_table("ab 人，c 😀", KINDS["sentencepiece"], KINDS["byte level"]).splitlines() == [
        "a     ␣|a   a",
        "b     b     b",
        "␣人   ␣|人  ␣人",
        "⟨EF⟩  ⟨EF⟩  ⟨EF⟩",
        "⟨BC⟩  ⟨BC⟩  ⟨BC⟩",
        "⟨8C⟩  ⟨8C⟩  ⟨8C⟩",
        "c     c     c",
        "␣😀   ␣|😀  ␣⟨F0⟩⟨9F⟩|⟨98⟩|⟨80⟩",
    ]


@pytest.mark.parametrize("make", [byte_level, sentencepiece, unigram, word_piece, suffixes])
def test_every_kind_of_tokenizer_meets_one_of_letters_in_every_word(make: Callable[[], Any], tokenizer: Any) -> None:
    text = "the cat is fun"
    spans = align(placed(text, make()), placed(text, tokenizer))
    assert sum(span.right_count for span in spans) == len(text)  # with the spaces that some of them drop
