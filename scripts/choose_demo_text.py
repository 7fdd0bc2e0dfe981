"""Choose the demo's sentences from what `write_demo_text.py` wrote: what is taught, what is kept unseen, what is left.

    python scripts/choose_demo_text.py zh zh-0.jsonl zh-1.jsonl --rest rest.txt
    python scripts/choose_demo_text.py en en.jsonl

Whole sentences without lists, digits or Latin letters, none nearly the same as another; what is taught repeats no
phrase and stands alone; what is kept unseen is close to nothing else. `--rest` gets every other sentence: the Chinese
teacher learns from them too.
Writes written.txt and unseen.txt of apt_model/demo/zh or en. What comes close to zh/corpus.txt, which people wrote, is
left out too.
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from apt_model.demo.lesson import LESSONS, parse
from apt_model.teaching.topics import default_topics, detect_topic

DEMO = Path(__file__).parent.parent / "apt_model" / "demo"
UNSEEN = {"zh": 20, "en": 160}  # of each topic; of all stories
TAUGHT_BYTES = {"zh": 400_000, "en": 400_000}
SAME = 0.6  # share of a sentence's 5-character pieces that an earlier one has: then it is left out
RARE = 3  # a sentence with a character found less often than this is left out: each costs the teacher a token
OTHER = 0.4  # an unseen sentence shares less than this with any other
PLAIN = re.compile("[\u4e00-\u9fff，。！？、：；“”《》（）]+")
ODD = re.compile(
    "以下|如下|例如：|短文|我们的生活|作为一个|抱歉|世纪|年代|公元|[省朝]|年。|"
    r"(.{4,}).*\1|([^、，]{2,})[、，]\2(?=[、，。])"  # a phrase twice; a list that repeats itself
)
HARMFUL = re.compile("饮酒|喝酒|吸烟|人权|战争")  # what a small model says of it is no sentence to ship
NO_BEGINNING = re.compile(
    "因此|例如|这|它|他|她|此外|同时|总之|另外|其次|首先|但|然而|您|建议您|好的|最后|并|而|其|比如|不过|所以|"
    "如果你|通过这|那|在这|我|只|当然|随着时间|此|还|也|以及|一|请|除"
)


def is_sound(sentence: str) -> bool:
    """Whether it is a whole Chinese sentence to learn from."""
    paired = all(sentence.count(left) == sentence.count(right) for left, right in ("“”", "（）", "《》"))
    whole = 12 <= len(sentence) <= 64 and PLAIN.fullmatch(sentence) and sentence[0] not in "，。、：；）》”！？"
    return bool(whole and paired)


def stands_alone(topic: str, sentence: str) -> bool:
    """Whether it may be taught: short, of its topic, nothing twice, understood without the sentence before."""
    pieces = Counter(sentence[i : i + 2] for i in range(len(sentence) - 1))
    return (
        15 <= len(sentence) <= 46
        and sentence.endswith("。")
        and not NO_BEGINNING.match(sentence)
        and not ODD.search(sentence)
        and max(pieces.values()) < 3
        and detect_topic(sentence, default_topics()) == topic
    )


def passages(story: str) -> Iterator[str]:
    """A story's sentences in passages of 60 to 180 characters."""
    passage = ""
    for sentence in re.findall('[^.!?\n]+[.!?]+["”]?', story):
        if len(passage) + len(sentence) > 180 and len(passage) >= 60:
            if passage.count('"') % 2 == 0:
                yield passage
            passage = ""
        passage = f"{passage} {sentence.strip()}".strip()


def pieces_of(text: str) -> set[str]:
    """All pieces of 5 characters."""
    return {text[i : i + 5] for i in range(len(text) - 4)}


class Overlap:
    """How much of a text stands in one of the texts added before."""

    def __init__(self) -> None:
        self._owners: dict[str, list[int]] = defaultdict(list)
        self._count = 0

    def add(self, text: str) -> None:
        """Remember a text."""
        for piece in pieces_of(text):
            self._owners[piece].append(self._count)
        self._count += 1

    def of(self, text: str, *, but: int = 0) -> float:
        """Largest share of its pieces that one text has; `but=1` leaves out the text itself."""
        pieces = pieces_of(text)
        hits = Counter(owner for piece in pieces for owner in self._owners[piece]).most_common(1 + but)
        return hits[but][1] / len(pieces) if len(hits) > but else 0.0


def distinct(texts: Iterable[tuple[str, str]], overlap: Overlap) -> list[tuple[str, str]]:
    """Those not nearly the same as an earlier one."""
    kept = []
    for topic, text in texts:
        if overlap.of(text) <= SAME:
            overlap.add(text)
            kept.append((topic, text))
    return kept


def read(lang: str, files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Topic and sentence (or passage) of everything sound that was written."""
    rows = (json.loads(line) for file in files for line in file.read_text("utf-8").splitlines())
    for topic, _, text in rows:
        if lang == "en":
            yield from ((detect_topic(passage, LESSONS["en"].topics), passage) for passage in passages(text))
        else:
            yield from (
                (topic, said) for said in map(str.strip, re.findall("[^。！？\n]+[。！？]", text)) if is_sound(said)
            )


def choose(
    lang: str, own: list[tuple[str, str]], texts: list[tuple[str, str]], overlap: Overlap
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What is taught besides our `own`, and what is kept unseen."""
    begun = Counter(text[:3] for _, text in own)
    taught, unseen, count = [], [], Counter[str]()
    size = sum(len(text.encode()) + 1 for _, text in own)
    for topic, text in texts:
        if lang == "zh" and (not stands_alone(topic, text) or begun[text[:3]] == 5):
            continue
        group = topic if lang == "zh" else ""
        if count[group] < UNSEEN[lang] and overlap.of(text, but=1) < OTHER:
            unseen.append((topic, text))
            count[group] += 1
        elif size < TAUGHT_BYTES[lang] - 200:
            taught.append((topic, text))
            size += len(text.encode()) + 1
        begun[text[:3]] += 1
    return taught, unseen


def save(path: Path, texts: Iterable[tuple[str, str]], topics: Iterable[str]) -> None:
    """One sentence a line, below the heading of its topic."""
    lines: dict[str, list[str]] = {topic: [] for topic in topics}
    for topic, text in texts:
        lines.setdefault(topic, []).append(text)
    found = [f"# {topic}\n" + "\n".join(some) + "\n" for topic, some in lines.items() if some]
    path.write_text("".join(found), encoding="utf-8")
    print(f"{path.name}: {sum(map(len, lines.values()))} lines, {path.stat().st_size:,} bytes")


def main() -> None:
    """Choose and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lang", choices=("zh", "en"))
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--rest", type=Path)
    arguments = parser.parse_args()
    home, lang = DEMO / arguments.lang, arguments.lang
    ours = home / "corpus.txt"
    own = [(t, s) for t, some in parse(ours.read_text("utf-8")).items() for s in some] if ours.exists() else []
    overlap = Overlap()
    for _, text in own:
        overlap.add(text)
    texts = list(read(lang, arguments.texts))
    found = Counter(chain.from_iterable(text for _, text in texts))
    known = {character for character, times in found.items() if times >= RARE}.union(*(text for _, text in own))
    texts = distinct((pair for pair in texts if known.issuperset(pair[1])), overlap)
    random.Random(0).shuffle(texts)
    taught, unseen = (
        [(topic, text) for topic, text in some if not HARMFUL.search(text)]
        for some in choose(lang, own, texts, overlap)
    )
    topics = default_topics() if lang == "zh" else [*LESSONS["en"].topics]
    save(home / "written.txt", taught, topics)
    save(home / "unseen.txt", unseen, topics)
    if arguments.rest:
        used = {text for _, text in taught + unseen}
        rest = [pair for pair in texts if pair[1] not in used and not HARMFUL.search(pair[1])]
        save(arguments.rest, rest, topics)


if __name__ == "__main__":
    main()
