"""Which text each token adds: byte-level BPE, sentencepiece, WordPiece, and whatever else decodes ids.

Knows tokenizers; knows nothing of models or cards.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
LONE_BYTE = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of a byte that is no text


class Pieces:
    """A tokenizer's tokens one by one.

    Args:
        tokenizer: a transformers tokenizer; anything else has no pieces.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self._is_byte_level = self._fast is not None and self._fast.decoder.decode(["Ã", "©"]) == "é"  # C3 A9 in UTF-8
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = {id for id, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        self._size = len(tokenizer)
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, str] = {}
        self._anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]  # what is decoded behind it begins no text
        self._before = len(self._decode(self._anchor))

    @classmethod
    def of(cls, tokenizer: Any) -> "Pieces | None":
        """The pieces of a tokenizer that has any."""
        return cls(tokenizer) if hasattr(tokenizer, "convert_ids_to_tokens") else None

    def split(self, ids: Sequence[int], text: str) -> tuple[str, ...]:
        """What each id adds to `text`, which all of them together decode to without special tokens.

        A token that only begins a character adds "", the one that ends it all of it.
        """
        pieces, decoder, begins = [], codecs.getincrementaldecoder("utf-8")("replace"), True
        for token in ids:
            if self.is_special(token):
                pieces.append("")
                continue
            pieces.append(decoder.decode(self._first(token) if begins else self.bytes_of(token)))
            begins = False
        if pieces:
            pieces[-1] += decoder.decode(b"", final=True)
        return tuple(pieces) if "".join(pieces) == text else self._split_slowly(ids, text)

    def names(self, ids: Iterable[int]) -> list[str]:
        """What to call each id by itself: its text, ⟨E4⟩ for a byte of a character, its name if it is special."""
        return [self._names.get(token) or self._name(token) for token in ids]

    def _split_slowly(self, ids: Sequence[int], text: str) -> tuple[str, ...]:
        """For decoders that look at more than one token: how far the beginning of the text stands after each."""
        real = [index for index, token in enumerate(ids) if not self.is_special(token)]
        pieces, end = [""] * len(ids), 0
        for count, index in enumerate(real, start=1):
            start = end
            if count == len(real):
                end = len(text)
            else:
                said = self._tokenizer.decode([ids[one] for one in real[:count]], skip_special_tokens=True)
                end = max(end, _common(said, text))
            pieces[index] = text[start:end]
        return tuple(pieces)

    def is_special(self, token: int) -> bool:
        """Whether an id stands for no text: a special token, or beyond the vocabulary."""
        return token in self._special or not 0 <= token < self._size

    def bytes_of(self, token: int) -> bytes:
        """The bytes of UTF-8 that a token adds behind another one; a special token's are its name's."""
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = self._read(token)
        return found

    def _first(self, token: int) -> bytes:
        """Where a text begins, some decoders take a space away."""
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
            name = visible_bytes(self.bytes_of(token))
        self._names[token] = name
        return name

    def _spelled(self, token: int) -> str:
        spelled = self._fast.id_to_token(token) if self._fast else self._tokenizer.convert_ids_to_tokens(token)
        return spelled if isinstance(spelled, str) else ""

    def _decode(self, ids: list[int]) -> str:
        decoder = self._fast if self._fast is not None else self._tokenizer
        text: str = decoder.decode(ids, skip_special_tokens=False)
        return text


def visible_bytes(said: bytes) -> str:
    """Bytes as text, those that are no whole character as ⟨E4⟩."""
    return LONE_BYTE.sub(lambda byte: f"⟨{ord(byte[0]) - 0xDC00:02X}⟩", said.decode("utf-8", "surrogateescape"))


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for what follows U+0100 in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _letters_of_bytes()
