"""Topic detection by counting keywords, which are listed in topics.toml and topics_en.toml. Knows nothing of models."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

GENERAL = "通用"

TopicKeywords = dict[str, list[str]]


def default_topics() -> TopicKeywords:
    """A fresh copy of the built-in lists: 互联网 人工智能 科技 医疗 教育 经济 文化 体育, in this order."""
    return {topic: list(keywords) for topic, keywords in _built_in().items()}


@lru_cache(maxsize=1)
def _built_in() -> Mapping[str, tuple[str, ...]]:
    """Keywords by topic, the English ones after the Chinese ones."""
    folder = files("apt_model.teaching")
    chinese, english = (
        tomllib.loads(folder.joinpath(name).read_text("utf-8")) for name in ("topics.toml", "topics_en.toml")
    )
    return {topic: (*keywords, *english[topic]) for topic, keywords in chinese.items()}


def detect_topic(text: str, topics: Mapping[str, Iterable[str]]) -> str:
    """The topic whose keywords, its name among them, occur most often in the text; 通用 where none occurs.

    A topic of which a user has added or changed the list wins a tie with a built-in one, then the first listed wins; a
    keyword that stands in both counts for the user's alone. Of overlapping keywords the longest counts: 神经网络 is no
    hit for 网络. A keyword in ASCII counts only as a whole word ("ai" is not in "said"), in the plural too. Case does
    not matter, and a hyphen or a line break is as good as a blank.
    """
    index = _index(tuple((topic, tuple(keywords)) for topic, keywords in topics.items()))
    hits = dict.fromkeys(topics, 0)
    for owners in _found(_plain(text), index):
        for topic in owners:
            hits[topic] += 1
    best = max(hits, key=lambda topic: (hits[topic], topic in index.of_the_user), default=GENERAL)
    return best if hits.get(best) else GENERAL


@dataclass(frozen=True, kw_only=True)
class _Keyword:
    text: str
    topics: tuple[str, ...]
    whole_word: bool


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The keywords by how they begin, longest first, so that few are compared at any place.

    A keyword begins with its first ASCII word or else with its first two characters. One of a single other character
    ends every list that begins with it, and has a list of its own.
    """

    by_beginning: Mapping[str, list[_Keyword]]
    of_the_user: frozenset[str]


_RUNS = re.compile(r"(?P<word>[a-z0-9]+)|[^\sa-z0-9]+")


@lru_cache(maxsize=8)
def _index(topics: tuple[tuple[str, tuple[str, ...]], ...]) -> _Index:
    of_the_user = frozenset(topic for topic, keywords in topics if _built_in().get(topic) != keywords)
    owners = _owners(topics, of_the_user)
    index: dict[str, list[_Keyword]] = {}
    for text in sorted(owners, key=len, reverse=True):
        record = _Keyword(text=text, topics=tuple(owners[text]), whole_word=text.isascii())
        index.setdefault(_beginning(text), []).append(record)
        if len(text) == 1 and not _is_word(text):
            for start, longer in index.items():
                if start[0] == text and start != text:
                    longer.append(record)
    return _Index(by_beginning=index, of_the_user=of_the_user)


def _owners(topics: Iterable[tuple[str, tuple[str, ...]]], of_the_user: frozenset[str]) -> dict[str, list[str]]:
    """The topics for which each keyword counts; a plural counts where it is no keyword itself."""
    owners: dict[str, list[str]] = {}
    for topic, keywords in topics:
        for keyword in filter(None, dict.fromkeys(map(_plain, (topic, *keywords)))):
            owners.setdefault(keyword, []).append(topic)
    for keyword, some in owners.items():
        if not of_the_user.isdisjoint(some):
            owners[keyword] = [topic for topic in some if topic in of_the_user]
    return {_plural(keyword): some for keyword, some in owners.items() if keyword.isascii()} | owners


def _beginning(keyword: str) -> str:
    first_word = re.match("[a-z0-9]+", keyword)
    return first_word.group() if first_word else keyword[:2]


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("-", " ").split())


def _plural(noun: str) -> str:
    """The regular plural of an English noun; other text is returned unchanged."""
    if not re.search("[a-z][a-z]$", noun):
        return noun
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search("([sxz]|[cs]h)$", noun) else "s")


def _found(text: str, index: _Index) -> Iterator[Sequence[str]]:
    """The topics of each keyword in the text, from left to right; none begins within another."""
    end = 0
    for place, candidates in _places(text, index.by_beginning):
        if place < end:
            continue
        for keyword in candidates:
            after = place + len(keyword.text)
            if text.startswith(keyword.text, place) and not (keyword.whole_word and _is_word(text[after : after + 1])):
                yield keyword.topics
                end = after
                break


def _places(text: str, by_beginning: Mapping[str, list[_Keyword]]) -> Iterator[tuple[int, list[_Keyword]]]:
    """Where a keyword may begin, and which: at an ASCII word, or at any other character."""
    known = by_beginning.get
    for run in _RUNS.finditer(text):
        start, stop = run.span()
        if run.lastgroup == "word":
            if candidates := known(run.group()):
                yield start, candidates
            continue
        for place in range(start, stop):
            if candidates := known(text[place : place + 2]) or known(text[place]):
                yield place, candidates


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalnum()
