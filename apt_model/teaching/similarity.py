"""Text similarity. Knows nothing of who wrote the texts."""

from collections.abc import Callable, Sequence

try:
    from cydifflib import SequenceMatcher  # difflib's algorithm and results, 3 to 20 times faster
except ImportError:
    from difflib import SequenceMatcher

MAX_CHARACTERS = 1_000

Similarity = Callable[[str, str], float]


def text_similarity(teacher_text: str, student_text: str) -> float:
    """difflib's ratio of the first 1,000 characters of each: 0 for nothing in common, 1 for the same text."""
    matcher = SequenceMatcher(None, teacher_text[:MAX_CHARACTERS], student_text[:MAX_CHARACTERS], autojunk=False)
    return float(matcher.ratio())


def token_similarity(teacher_ids: Sequence[int], student_ids: Sequence[int]) -> float:
    """difflib's ratio of two lists of token ids, for a tokenizer that gives no text."""
    return float(SequenceMatcher(None, teacher_ids, student_ids, autojunk=False).ratio())
