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

    A keyword in ASCII counts only as a whole word ("ai" is not in "said"); case does not matter. Only the first
    2,000 characters of each text are looked at.
    """
    joined = "\n".join(text[:MAX_CHARACTERS] for text in texts).lower()
    best, most = GENERAL, 0
    for topic, keywords in topics.items():
        hits = sum(_count(joined, keyword.lower()) for keyword in keywords)
        if hits > most:
            best, most = topic, hits
    return best


def _count(text: str, keyword: str) -> int:
    if not keyword:
        return 0
    return len(_whole_word(keyword).findall(text)) if keyword.isascii() else text.count(keyword)


@lru_cache(maxsize=4096)
def _whole_word(keyword: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){re.escape(keyword)}(?![a-z0-9])")
