"""Sanitising text for display: no control or bidi characters, none whose width terminals disagree on.

The length is capped first, so that a line of 10 MB costs no more than a short one. Knows nothing of cards or colours.
"""

import re
import unicodedata
from functools import lru_cache

REPLACEMENT = "\ufffd"
MAX_CHARACTERS = 4_000
MAX_MARKS = 4

_BIDI = "\u061c\u200e\u200f" + "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
_DROPPED = [
    (0x200B, 0x200D),
    (0x2060, 0x2064),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0x20E3, 0x20E3),
    (0x1F3FB, 0x1F3FF),
]
_DROPPED += [(0xE0000, 0xE0FFF), (0x00AD, 0x00AD), (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5)]
_DROPPED += [(0x180B, 0x180F), (0x206A, 0x206F), (0x3164, 0x3164), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB)]
_IS_DROPPED = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _DROPPED) + "]")
_SHOWN_AS = {
    **{chr(code): "^" + chr(code ^ 0x40) for code in (*range(0x20), 0x7F)},  # caret notation
    **{"\n": "⏎", "\t": " "},
    **dict.fromkeys(_BIDI, REPLACEMENT),
    **{chr(0x1F1E6 + index): chr(ord("A") + index) for index in range(26)},  # regional indicators
}
_PLAIN = re.compile(
    r"[ -~\u00a1-\u00ac\u00ae-\u02ff\u3001-\u3029\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uff01-\uff5e]*\Z"
)

_IN_ASCII = {
    "👨🏫": "[T]", "👨🎓": "[S]", "🟢": "(+)", "🟡": "(~)", "🔴": "(-)", "█": "#", "░": "-", "⏎": "\\n", "…": "...",
    "→": "->", "×": "x", "↩": "<-", "α": "alpha", "β": "beta", "【": "[", "】": "]", "⟨": "<", "⟩": ">", "–": "-",
    "−": "-", "±": "+/-",
}  # fmt: skip


def sanitise(text: str, limit: int = MAX_CHARACTERS) -> str:
    """`text` on one line, harmless on any terminal, at most `limit` characters; applying it twice changes nothing.

    Newlines become ⏎, tabs a space, C0 controls and DEL caret notation (ESC is ^[); C1, surrogates, private use,
    noncharacters, unassigned code points and bidi controls become U+FFFD; joiners, variation selectors, tags, skin
    tones and other invisible characters are dropped; regional indicators become letters; at most 4 combining marks
    stay on a character; the result is in NFC.
    """
    text = text[:limit]
    if _PLAIN.match(text):
        return text
    shown = "".join(map(_visible, text.replace("\r\n", "\n")))
    return unicodedata.normalize("NFC", _limit_marks(unicodedata.normalize("NFC", shown)))[:limit]


@lru_cache(maxsize=8192)
def _visible(character: str) -> str:
    shown = _SHOWN_AS.get(character)
    if shown is not None:
        return shown
    if _IS_DROPPED.match(character):
        return ""
    category = unicodedata.category(character)
    if category in ("Zs", "Zl", "Zp"):
        return "\u3000" if character == "\u3000" else " "
    return REPLACEMENT if category in ("Cc", "Cf", "Cs", "Co", "Cn") else character


def _limit_marks(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for character in text:
        is_mark = unicodedata.category(character) in ("Mn", "Mc", "Me")
        marks = marks + 1 if is_mark else 0
        if is_mark and not kept:
            kept.append(REPLACEMENT)
        if marks <= MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def fit_encoding(text: str, encoding: str | None) -> str:
    """`text` with the characters that `encoding` lacks replaced: known symbols by ASCII ones, others by an escape.

    A stream in memory has no encoding (None): it takes what UTF-8 can say.
    """
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for symbol, plain in _IN_ASCII.items():
            if not can_say(symbol, encoding):
                text = text.replace(symbol, plain)
        return "".join(map(lambda c: _escape(c, encoding), text))
    return text


def can_say(text: str, encoding: str | None) -> bool:
    """Whether `encoding` has every character of `text`; None as in `fit_encoding`."""
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _escape(character: str, encoding: str) -> str:
    if can_say(character, encoding):
        return character
    is_picture = unicodedata.category(character) == "So"
    return "*" if is_picture else character.encode("ascii", "backslashreplace").decode()
