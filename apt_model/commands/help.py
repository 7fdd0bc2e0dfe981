"""Help: `--help` is one screen, `--help-all` every flag in its group; in Chinese unless `--lang en` stands beside it.

English texts of flags stand where the flags are made, Chinese ones in `locales/help_zh.toml`; the short pages of both
languages in `locales/help_*.toml`. Knows nothing of what a command does.
"""

import argparse
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from wcwidth import wcswidth

from apt_model.i18n import LANGUAGES

if TYPE_CHECKING:
    from apt_model.commands.options import Command, Parser

DEFAULT_LANG = LANGUAGES[0]
HELP_ALL = ("--help-all", "--help_all")
WIDEST, NARROW = 100, 60  # columns
LEFT = 24  # columns of a flag beside its text
SAID = re.compile(r" \(default: ([^()]*)\)$")
WORDS = {"yes": "是", "no": "否", "True": "是", "False": "否", "off": "不限", "none": "无"}


def language_of(words: Sequence[str]) -> str | None:
    """The language that `--lang` names among the words of a command line."""
    named = [word.partition("=")[2] for word in words if word.startswith("--lang=")]
    named += [after for word, after in pairwise(words) if word == "--lang"]
    return named[-1] if named else None


def language_last(words: list[str]) -> list[str]:
    """A language before the command moved behind it: `--lang en distill` → `distill --lang en`."""
    own = 2 if words[:1] == ["--lang"] else 1 if words[:1] and words[0].startswith("--lang=") else 0
    return [*words[own : own + 1], *words[:own], *words[own + 1 :]] if len(words) > own else []


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the words of a command line ask for a page of help."""
    before = words[: words.index("--")] if "--" in words else words
    return bool({"-h", "--help", *HELP_ALL} & set(before))


def print_page(page: str, file: Any = None) -> None:
    """Print a page of help, with what the output cannot encode replaced."""
    from apt_model.render.sanitise import fit_encoding

    stream = file or sys.stdout
    print(fit_encoding(page, stream.encoding or "utf-8"), end="", file=stream)


def overview(parser: "Parser") -> str:
    """The page of `apt-model --help`: what it is for, and its commands."""
    texts = _texts(parser.lang)
    lines = [*_lines("", texts.word("overview"), 0), "", texts.word("commands")]
    for name, command in parser.commands().items():
        lines += _lines(f"  {name}", texts.of_command(command), LEFT - 7)
    return "\n".join([*lines, "", *_lines("", texts.word("more_of_commands"), 0)]) + "\n"


def short_page(command: "Command") -> str:
    """The page of a command's `--help`: at most 24 lines of 80 columns; of a command with few flags, all of them."""
    page = _texts(command.lang).pages.get(_name(command))
    if page is None:
        return full_page(command)
    return "\n".join(line for said in page.strip().splitlines() for line in _of_page(said)) + "\n"


def full_page(command: "Command") -> str:
    """The page of a command's `--help-all`: every flag, in groups."""
    texts = _texts(command.lang)
    named = [one for _, actions in command.groups() for one in actions if not one.option_strings]
    usage = [command.prog, *(_values(one) for one in named), texts.word("flags")]
    lines = [*_lines("", texts.word("usage") + " ".join(usage), 0), ""]
    lines += _lines("", texts.of_command(command), 0)
    for title, actions in command.groups():
        shown = [one for one in actions if one.help != argparse.SUPPRESS]
        if shown:
            lines += ["", texts.of_group(title)]
        for one in shown:
            lines += _lines(f"  {_invocation(one)}", texts.of_flag(_name(command), one), LEFT)
    return "\n".join(lines) + "\n"


class _Texts:
    """The texts of help in one language."""

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self.pages: Mapping[str, str] = tables["pages"]
        self._words: Mapping[str, str] = tables["words"]
        self._tables = tables

    def word(self, key: str) -> str:
        return self._words[key]

    def of_group(self, title: str) -> str:
        said: str = self._tables.get("groups", {}).get(title, f"{title}:")
        return said

    def of_command(self, command: "Command") -> str:
        said: str = self._tables.get("commands", {}).get(_name(command), command.description or "")
        return said

    def of_flag(self, command: str, action: argparse.Action) -> str:
        """The text of a flag, with its default; English where the language has none."""
        english = (action.help or "").replace("%%", "%").replace("%(prog)s", "apt-model")
        own, shared = self._tables.get("flags_of", {}).get(command, {}), self._tables.get("flags", {})
        said: str | None = own.get(action.dest, shared.get(action.dest))
        if said is None:
            return english
        default = SAID.search(english)
        if default is None or "默认" in said:
            return said
        return f"{said}（默认：{WORDS.get(default[1], default[1])}）"


def _texts(lang: str) -> _Texts:
    """The texts of a language; English ones if there are none in it, or the output cannot encode them."""
    from apt_model.render.sanitise import can_say

    return _load(lang if lang == "zh" and can_say("教", sys.stdout.encoding or "utf-8") else "en")


@lru_cache
def _load(lang: str) -> _Texts:
    return _Texts(tomllib.loads(files("apt_model.locales").joinpath(f"help_{lang}.toml").read_text("utf-8")))


def _name(command: "Parser") -> str:
    return command.prog.rpartition(" ")[2]


def _invocation(action: argparse.Action) -> str:
    """A flag as it is typed: `--data FILE …`."""
    values = _values(action)
    return " ".join(filter(None, [", ".join(action.option_strings), values]))


def _values(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    one = f"{{{','.join(map(str, action.choices))}}}" if action.choices else str(action.metavar or action.dest.upper())
    many = {"+": f"{one} …", "*": f"[{one} …]", "?": f"[{one}]"}
    return many.get(str(action.nargs), one)


def _columns() -> int:
    return max(min(shutil.get_terminal_size().columns, WIDEST), 20)


def _of_page(line: str) -> Iterator[str]:
    """The lines of a short page's line: commands stay whole, columns beside each other where there is room."""
    indent = line[: len(line) - len(line.lstrip())]
    columns = re.match(r"(\s+\S.*?)\s{2,}(\S.*)$", line)
    if not line.strip() or line.strip().startswith("apt-model "):
        yield line
    elif columns:
        yield from _lines(columns[1], columns[2], LEFT)
    else:
        yield from _lines("", line.strip(), len(indent))


def _lines(left: str, text: str, at: int) -> Iterator[str]:
    """A text at column `at` beside what stands left of it, below that where it is too long or the screen narrow."""
    from apt_model.render.wrap import wrap

    columns = _columns()
    at = at if columns >= NARROW or not left else 6
    indent = " " * at
    begin = left + " " * (at - wcswidth(left)) if wcswidth(left) + 2 <= at else ""
    if left and not begin:
        yield left
    for index, (start, end) in enumerate(wrap(text, columns - at)):
        yield (begin if index == 0 and begin else indent) + text[start:end]
