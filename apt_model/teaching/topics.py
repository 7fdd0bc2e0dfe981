"""Which topic a text is about, by counting keywords. Knows nothing of models; the keyword lists are topics.toml."""

import re
import tomllib
from collections.abc import Iterable, Mapping
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

    Where keywords overlap, the longest counts: 神经网络 is no hit for 网络. A keyword in ASCII counts only as a whole
    word ("ai" is not in "said"); case does not matter. Only the first 2,000 characters of each text are looked at.
    """
    pattern, owners = _matcher(tuple((topic, tuple(keywords)) for topic, keywords in topics.items()))
    joined = "\n".join(text[:MAX_CHARACTERS] for text in texts).lower()
    hits = dict.fromkeys(topics, 0)
    for match in pattern.finditer(joined):
        for topic in owners[match.group()]:
            hits[topic] += 1
    best = max(hits, key=lambda topic: hits[topic], default=GENERAL)
    return best if hits.get(best) else GENERAL


@lru_cache(maxsize=8)
def _matcher(topics: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern[str], Mapping[str, list[str]]]:
    """One pattern for all keywords, longest first, and the topics that each belongs to."""
    owners: dict[str, list[str]] = {}
    for topic, keywords in topics:
        for keyword in dict.fromkeys(keyword.lower() for keyword in keywords):
            owners.setdefault(keyword, []).append(topic)
    owners.pop("", None)
    longest_first = sorted(owners, key=lambda keyword: -len(keyword))
    words = "|".join(re.escape(keyword) for keyword in longest_first if keyword.isascii())
    others = "|".join(re.escape(keyword) for keyword in longest_first if not keyword.isascii())
    whole_words = rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])" if words else ""
    return re.compile("|".join(filter(None, (others, whole_words))) or r"(?!)"), owners
