"""Agreement of two answers: how many of their words stand in both, in the same order. Knows nothing of who answered.

The page counts the same (`dashboard/static/in_common.js`); a test compares the two.
"""

import re
from collections.abc import Sequence

MOST_WORDS = 1000  # of each answer; the page keeps a table of both
_BLANK = r"\t-\r \u00a0\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\u23ce"
_ALONE = (  # punctuation, and letters of scripts that are written without spaces
    r"!-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u2027\u2030-\u205e\u0e00-\u109f\u1780-\u17ff\u2e80-\u2fff\u3001-\u9fff"
    r"\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffef\U00020000-\U0003ffff"
)
_WORD = re.compile(f"[{_ALONE}]|[^{_ALONE}{_BLANK}]+")


def words_of(text: str) -> list[str]:
    """The words of a text, at most `MOST_WORDS`: runs between spaces; each mark, and each Chinese character, is one."""
    return [found[0] for _, found in zip(range(MOST_WORDS), _WORD.finditer(text), strict=False)]


def answer_agreement(teacher: str, student: str) -> float:
    """Share of the words of both answers, 0..1, that both have in the same order: 1 if they are the same.

    2 · L / (m + n), with L the length of the longest common subsequence of the answers' m and n words. Two answers
    without a word agree.
    """
    taught, said = words_of(teacher), words_of(student)
    if not taught and not said:
        return 1.0
    return 2 * _longest_common(taught, said) / (len(taught) + len(said))


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time, one bit for a column.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited: row ← (row + met) | (row − met).
    """
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    row = full = (1 << len(one)) - 1
    for word in other:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & full
    return len(one) - row.bit_count()
