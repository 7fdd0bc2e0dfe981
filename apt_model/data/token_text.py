"""The text that each single token adds when ids are decoded: byte-level BPE, sentencepiece, WordPiece and others.

Knows tokenizers; knows nothing of models or cards.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
BROKEN, GAP = "\ufffd", "▯"  # how decoders write a piece of a character, and what a text shows in its place
LONE_BYTE = re.compile("[\udc80-\udcff]")  # how "surrogateescape" decodes a byte that is no valid UTF-8


class TokenTexts:
    """The bytes, texts and names of a tokenizer's single tokens.

    Args:
        tokenizer: a transformers tokenizer, fast or slow.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        decoder = getattr(self._fast, "decoder", None)  # word-level tokenizers may have none
        self._is_byte_level = decoder is not None and decoder.decode(["Ã", "©"]) == "é"  # C3 A9 in UTF-8
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = {id for id, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        self._size = len(tokenizer)
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, str] = {}
        self._anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]  # a token behind it keeps its leading space
        self._before = len(self._decode(self._anchor))

    @classmethod
    def of(cls, tokenizer: Any) -> "TokenTexts | None":
        """For a transformers tokenizer; None for anything else."""
        return cls(tokenizer) if hasattr(tokenizer, "convert_ids_to_tokens") else None

    def split(self, ids: Sequence[int], text: str) -> tuple[str, ...]:
        """The part of `text` that each id adds; `text` is what the ids decode to without special tokens.

        A special token adds "". Of a character split over tokens, the token with its last byte adds the character and
        those before it "".
        """
        parts, decoder, begins = [], codecs.getincrementaldecoder("utf-8")("replace"), True
        for token in ids:
            if self.is_special(token):
                parts.append("")
                continue
            parts.append(decoder.decode(self._first(token) if begins else self.bytes_of(token)))
            begins = False
        if parts:
            parts[-1] += decoder.decode(b"", final=True)
        return tuple(parts) if "".join(parts) == text else self._split_slowly(ids, text)

    def names(self, ids: Iterable[int]) -> list[str]:
        """A printable name of each id: its text, with ⟨E4⟩ for a lone byte of a character; a special token's name."""
        return [self._names.get(token) or self._name(token) for token in ids]

    def _split_slowly(self, ids: Sequence[int], text: str) -> tuple[str, ...]:
        """For decoders that look at several tokens at once: decode every prefix of the ids, and take what each adds.

        Quadratic in the number of ids.
        """
        real = [index for index, token in enumerate(ids) if not self.is_special(token)]
        parts, end = [""] * len(ids), 0
        for count, index in enumerate(real, start=1):
            start = end
            if count == len(real):
                end = len(text)
            else:
                decoded = self._tokenizer.decode([ids[place] for place in real[:count]], skip_special_tokens=True)
                end = max(end, _common(decoded, text))
            parts[index] = text[start:end]
        return tuple(parts)

    def is_special(self, token: int) -> bool:
        """Whether an id stands for no text: a special token, or an id outside the vocabulary."""
        return token in self._special or not 0 <= token < self._size

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 bytes that a token adds behind another token; of a special token, those of its name."""
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = self._read(token)
        return found

    def _first(self, token: int) -> bytes:
        """The bytes of a token that begins a text, where some decoders drop its leading space."""
        if self._is_byte_level or BYTE_TOKEN.fullmatch(self._spelled(token)):
            return self.bytes_of(token)
        return self._decode([token]).encode("utf-8", "surrogatepass")

    def _read(self, token: int) -> bytes:
        spelled = self._spelled(token)
        if self._is_byte_level:
            codes = [BYTE_OF.get(letter, -1) for letter in spelled]
            return spelled.encode() if -1 in codes else bytes(codes)
        byte = BYTE_TOKEN.fullmatch(spelled)
        if byte:
            return bytes.fromhex(byte[1])
        return self._decode([*self._anchor, token])[self._before :].encode("utf-8", "surrogatepass")

    def _name(self, token: int) -> str:
        if token in self._special:
            name = self._spelled(token)
        elif self.is_special(token):
            name = f"⟨#{token}⟩"
        else:
            name = visible_bytes(self.bytes_of(token)).replace(BROKEN, GAP)
        self._names[token] = name
        return name

    def _spelled(self, token: int) -> str:
        spelled = self._fast.id_to_token(token) if self._fast else self._tokenizer.convert_ids_to_tokens(token)
        return spelled if isinstance(spelled, str) else ""

    def _decode(self, ids: list[int]) -> str:
        decoder = self._fast if self._fast is not None else self._tokenizer
        text: str = decoder.decode(ids, skip_special_tokens=False)
        return text


def mended(parts: Sequence[str]) -> tuple[str, ...]:
    """The parts of a text without "�", which stands for a piece of a character: cut at both ends of the text.

    In its middle a GAP stands for a run of them, in the part where the run begins.
    """
    whole = "".join(parts)
    first, end = len(whole) - len(whole.lstrip(BROKEN)), len(whole.rstrip(BROKEN))
    kept = (
        letter if letter != BROKEN else GAP if first < at < end and whole[at - 1] != BROKEN else ""
        for at, letter in enumerate(whole)
    )
    return tuple("".join(islice(kept, len(part))) for part in parts)


def visible_bytes(text: bytes) -> str:
    """Decode UTF-8 for display; a byte that is no valid UTF-8 is written as ⟨E4⟩."""
    return LONE_BYTE.sub(lambda byte: f"⟨{ord(byte[0]) - 0xDC00:02X}⟩", text.decode("utf-8", "surrogateescape"))


def _common(one: str, other: str) -> int:
    """Length of the common prefix."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's byte-to-unicode table, inverted: printable bytes map to themselves, the others to U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _letters_of_bytes()
