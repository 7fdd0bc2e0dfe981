"""Data for studies: paragraphs of Chinese text, extracted from the documentation in Debian packages.

    mkdir /tmp/texts && cd /tmp/texts && apt-get download manpages-zh debian-reference-zh-cn libreoffice-help-zh-cn
    for package in *.deb; do dpkg -x "$package" pages; done
    python -m studies.texts /tmp/texts/pages --out /tmp/texts   # train.txt and test.txt, one paragraph a line

Every tenth page is held out whole; a paragraph that occurs twice is kept once, where it came first.
"""

import argparse
import gzip
import itertools
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

HELD_OUT = 10  # every tenth page
SHORTEST, LEAST_CHINESE = 30, 0.6  # characters of a paragraph, and the share of them that are Chinese


class Paragraphs(HTMLParser):
    """The texts of a page's `<p>` elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """A paragraph begins; whatever ends it, the next one does, too."""
        if tag == "p":
            self.found.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        """It ends."""
        if tag == "p":
            self._inside = False

    def handle_data(self, data: str) -> None:
        """Its text."""
        if self._inside:
            self.found[-1] += data


def paragraphs(page: Path) -> list[str]:
    """Those of a page, HTML or roff, that are Chinese sentences."""
    texts = [
        re.sub(r"\s+", " ", text).strip() for text in (_of_html(page) if page.suffix == ".html" else _of_roff(page))
    ]
    return [text for text in texts if len(text) >= SHORTEST and _chinese(text) >= LEAST_CHINESE]


def _of_html(page: Path) -> list[str]:
    parser = Paragraphs()
    parser.feed(page.read_text("utf-8"))
    return parser.found


def _of_roff(page: Path) -> list[str]:
    """What stands between requests (lines that begin with a dot or an apostrophe), without its escapes."""
    text = gzip.decompress(page.read_bytes()).decode("utf-8", errors="ignore")
    plain = re.sub(r"\\f\(?\w|\\s[-+]?\d|\\[&|]", "", text).replace("\\-", "-").replace("\\ ", " ")
    return re.split(r"\n(?:[.'].*\n|\n)+", re.sub(r"\\.", "", plain))


def _chinese(text: str) -> float:
    return len(re.findall(r"[\u4e00-\u9fff]", text)) / len(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Write train.txt and test.txt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, help="a directory that has them somewhere below it")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    found = itertools.chain(arguments.pages.rglob("*.html"), arguments.pages.rglob("zh_CN/man*/*.gz"))
    pages = sorted(page for page in found if page.is_file())
    seen: set[str] = set()
    for name, chosen in (("train", lambda index: index % HELD_OUT), ("test", lambda index: not index % HELD_OUT)):
        lines = []
        for page in (page for index, page in enumerate(pages) if chosen(index)):
            lines += [text for text in dict.fromkeys(paragraphs(page)) if text not in seen]
            seen.update(lines)
        (arguments.out / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")
        print(f"{name}: {len(lines):,} paragraphs, {sum(map(len, lines)):,} characters")


if __name__ == "__main__":
    main()
