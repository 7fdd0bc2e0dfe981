"""How far a whole answer agrees with another: counted by hand, and against the textbook's table."""

import random

import pytest

from apt_model.events.answer_agreement import MOST_WORDS, answer_agreement, words_of

CASES = [
    ("the cat sat on the mat", "the cat sat on the mat", 12, 12),
    ("the cat sat on the mat", "a cat sat down on the mat", 10, 13),  # cat sat on the mat: 5 of 6 and 7
    ("he ran, and fell", "he fell", 4, 7),  # the comma is a word
    ("全球最大的网络", "全球的大网络", 10, 13),  # 全 球 大 网 络 of 7 and 6 characters
    ("学 习", "学习", 4, 4),
    ("don't", "dont", 0, 4),
    ("", "", 1, 1),
    ("", "word", 0, 1),
]


def by_table(one: list[str], other: list[str]) -> int:
    """The length of the longest common subsequence, as in a textbook."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one, 1):
        for j, right in enumerate(other, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if left == right else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


@pytest.mark.parametrize(("teacher", "student", "shared", "of"), CASES)
def test_an_answer_agrees_by_the_words_in_common_in_the_same_order(
    teacher: str, student: str, shared: int, of: int
) -> None:
    assert answer_agreement(teacher, student) == shared / of
    assert answer_agreement(student, teacher) == shared / of


def test_the_agreement_is_that_of_the_textbooks_table() -> None:
    draw = random.Random(7)
    for _ in range(200):
        one, other = (draw.choices("abcd,网", k=draw.randrange(1, 60)) for _ in range(2))
        expected = 2 * by_table(one, other) / (len(one) + len(other))
        assert answer_agreement(" ".join(one), " ".join(other)) == expected


def test_a_very_long_answer_is_compared_by_its_first_thousand_words() -> None:
    assert len(words_of("a " * 5000)) == MOST_WORDS
    assert answer_agreement("a " * 5000, "a " * 1000) == 1
