"""Line wrapping by display width: graphemes, words, and the line-breaking rules of Chinese punctuation.

Works on one line of sanitised text; knows nothing of its meaning.
"""

from typing import NamedTuple

from wcwidth import iter_graphemes, width

_NOT_AT_START = frozenset("，。、；：？！）》】」』”’…％%,.;:?!)]}")
_NOT_AT_END = frozenset("（《【「『“‘([{")
_PARTS = _NOT_AT_START | _NOT_AT_END | {" "}
_MOST_CARRIED = 2
_MOST_OF_A_KEY = 4


class _Piece(NamedTuple):
    start: int
    end: int
    cells: int


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis in place of what was cut."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def wrap(text: str, columns: int, *, first: int | None = None) -> list[tuple[int, int]]:
    """The lines of `text` as (start, end) offsets, each at most `columns` cells wide, the first at most `first`.

    Breaks between Chinese characters and between words; cuts words that are longer than a line. A mark that may not
    begin a line takes the character before it along; a bracket that may not end a line moves to the next one. Spaces
    at the ends of lines are dropped.
    """
    lines: list[tuple[int, int]] = []
    line: list[_Piece] = []
    used, room = 0, columns if first is None else first
    for piece in _pieces(text, columns):
        if used + piece.cells > room and (line or room < columns):
            carried = _carry(text, line, piece)
            lines.append(_trim(text, line))
            line, room = carried, columns
            used = sum(part.cells for part in line)
        line.append(piece)
        used += piece.cells
    return [*lines, _trim(text, line)]


def _carry(text: str, line: list[_Piece], head: _Piece) -> list[_Piece]:
    """Remove from the end of `line` the pieces that must stay together with `head` on the next line."""
    carried: list[_Piece] = []
    while len(line) > 1 and len(carried) < _MOST_CARRIED:
        if text[head.start] not in _NOT_AT_START and text[line[-1].end - 1] not in _NOT_AT_END:
            break
        head = line.pop()
        carried.insert(0, head)
    return carried


def _trim(text: str, line: list[_Piece]) -> tuple[int, int]:
    if not line:
        return 0, 0
    start, end = line[0].start, line[-1].end
    while start < end and text[start] == " ":
        start += 1
    while end > start and text[end - 1] == " ":
        end -= 1
    return start, end


def _pieces(text: str, columns: int) -> list[_Piece]:
    """Words of ASCII letters and digits (and numbers, 4,096 or 0.25) if they fit on a line, else graphemes."""
    pieces: list[_Piece] = []
    at, in_word = 0, False
    for grapheme in iter_graphemes(text):
        piece = _Piece(at, at + len(grapheme), max(width(grapheme), 0))
        is_word = grapheme.isascii() and (grapheme.isalnum() or grapheme in "_'-" or _is_in_number(text, at))
        if is_word and in_word and pieces[-1].cells < columns:
            piece = _Piece(pieces[-1].start, piece.end, pieces.pop().cells + piece.cells)
        pieces.append(piece)
        at, in_word = at + len(grapheme), is_word
    return _with_settings(text, pieces, columns)


def _with_settings(text: str, pieces: list[_Piece], columns: int) -> list[_Piece]:
    """Join `key=value` to one piece if it fits on a line; of a Chinese key, the last few characters."""
    joined: list[_Piece] = []
    for piece in pieces:
        joined.append(piece)
        if text[piece.start] == "=":
            for _ in range(_MOST_OF_A_KEY):
                if not _join_last(text, joined, columns):
                    break
        elif len(joined) > 1 and text[joined[-2].end - 1] == "=":
            _join_last(text, joined, columns)
    return joined


def _join_last(text: str, pieces: list[_Piece], columns: int) -> bool:
    """Join the last two pieces, unless a space or mark separates them, or they are longer than a line."""
    if len(pieces) < 2:
        return False
    before, last = pieces[-2:]
    parted = text[before.end - 1] in _PARTS or text[last.start] in _PARTS
    if parted or before.cells + last.cells > columns:
        return False
    pieces[-2:] = [_Piece(before.start, last.end, before.cells + last.cells)]
    return True


def _is_in_number(text: str, at: int) -> bool:
    return text[at] in ",." and text[at - 1 : at].isdecimal() and text[at + 1 : at + 2].isdecimal()
