"""Topic detection by counting keywords, which are listed in topics.toml. Knows nothing of models."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

GENERAL = "通用"
MAX_CHARACTERS = 2_000

TopicKeywords = dict[str, list[str]]


def default_topics() -> TopicKeywords:
    """A fresh copy of the built-in lists: 互联网 人工智能 科技 医疗 教育 经济 文化 体育, in this order."""
    table = tomllib.loads(files("apt_model.teaching").joinpath("topics.toml").read_text("utf-8"))
    return {topic: list(keywords) for topic, keywords in table.items()}


def detect_topic(texts: Iterable[str], topics: Mapping[str, Iterable[str]]) -> str:
    """The topic whose keywords occur most often in the texts; the first listed wins a tie; 通用 where none occurs.

    Of overlapping keywords the longest counts: 神经网络 is no hit for 网络. A keyword in ASCII counts only as a whole
    word ("ai" is not in "said"); case does not matter. Only the first 2,000 characters of each text are looked at.
    """
    index = _index(tuple((topic, tuple(keywords)) for topic, keywords in topics.items()))
    hits = dict.fromkeys(topics, 0)
    for owners in _found("\n".join(text[:MAX_CHARACTERS] for text in texts).lower(), index):
        for topic in owners:
            hits[topic] += 1
    best = max(hits, key=lambda topic: hits[topic], default=GENERAL)
    return best if hits.get(best) else GENERAL


@dataclass(frozen=True, kw_only=True)
class _Keyword:
    text: str
    topics: tuple[str, ...]
    whole_word: bool


_Index = Mapping[str, list[_Keyword]]


@lru_cache(maxsize=8)
def _index(topics: tuple[tuple[str, tuple[str, ...]], ...]) -> _Index:
    """The keywords by their first two characters, longest first, so that few are compared at any place.

    A keyword of one character ends every list that begins with it, and has a list of its own.
    """
    owners: dict[str, dict[str, None]] = {}
    for topic, keywords in topics:
        for keyword in keywords:
            owners.setdefault(keyword.lower(), {})[topic] = None
    index: dict[str, list[_Keyword]] = {}
    for text in sorted(filter(None, owners), key=len, reverse=True):
        record = _Keyword(text=text, topics=tuple(owners[text]), whole_word=text.isascii())
        index.setdefault(text[:2], []).append(record)
        if len(text) == 1:
            for start, longer in index.items():
                if start[0] == text and start != text:
                    longer.append(record)
    return index


def _found(text: str, index: _Index) -> Iterator[tuple[str, ...]]:
    """The topics of each keyword in the text, from left to right; none begins within another."""
    place = 0
    while place < len(text):
        for keyword in index.get(text[place : place + 2]) or index.get(text[place]) or ():
            end = place + len(keyword.text)
            if text.startswith(keyword.text, place) and (not keyword.whole_word or _stands_alone(text, place, end)):
                yield keyword.topics
                place = end
                break
        else:
            place += 1


def _stands_alone(text: str, start: int, end: int) -> bool:
    return not (start and _is_word(text[start - 1])) and not (end < len(text) and _is_word(text[end]))


def _is_word(character: str) -> bool:
    return character.isascii() and character.isalnum()
