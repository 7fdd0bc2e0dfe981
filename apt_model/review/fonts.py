"""Fonts for the plots: each character of a text is drawn on any machine, or replaced. Knows nothing of plots.

matplotlib has no Chinese font, and draws a box for a character that a font lacks. So Latin is drawn in its own font,
the characters of GB 2312 in ours (`AptSansSC.otf`, licence in OFL.txt; the same on every machine), and others in the
first system font that has them.
"""

import unicodedata
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

from apt_model.render.sanitise import REPLACEMENT, sanitise

LATIN, OURS = "DejaVu Sans", "Apt Sans SC"
NO_LETTERS = "Last Resort"  # comes with matplotlib and has a box for every character there is


def families(text: str) -> list[str]:
    """The font families that matplotlib should try, in this order, for each character of `text`."""
    return list(dict.fromkeys([LATIN, OURS, *filter(None, map(_family, sorted(set(text))))]))


def drawable(text: str) -> str:
    """`text` sanitised, without pictographs, and with the characters that no font has replaced."""
    shown = "".join(character for character in sanitise(text) if not _is_picture(character))
    fit = (character if character == " " or _family(character) else REPLACEMENT for character in shown)
    return " ".join("".join(fit).split())


def _is_picture(character: str) -> bool:
    return ord(character) >= 0x2000 and unicodedata.category(character) in ("So", "Sk")


@lru_cache(maxsize=8192)
def _family(character: str) -> str | None:
    """The family that has a character: matplotlib's, ours, or the first of the system's; None if none has it."""
    for family, path in _fonts():
        if ord(character) in _characters(path):
            return family
    return None


@lru_cache(maxsize=1)
def _fonts() -> list[tuple[str, str]]:
    """(family, path) of the fonts in search order. Registers our font with matplotlib."""
    from matplotlib import font_manager

    with as_file(files("apt_model.review").joinpath("AptSansSC.otf")) as path:
        font_manager.fontManager.addfont(path)
    known = [(entry.name, entry.fname) for entry in font_manager.fontManager.ttflist if _is_upright(entry)]
    first = [(name, path) for family in (LATIN, OURS) for name, path in known if name == family]
    return first + sorted(set(known) - set(first))


def _is_upright(entry: Any) -> bool:
    return entry.style == "normal" and entry.weight in (400, "normal") and not entry.name.startswith(NO_LETTERS)


@lru_cache(maxsize=512)
def _characters(path: str) -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(path).get_charmap())
