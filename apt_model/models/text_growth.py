"""How much longer a text a tokenizer may make of one, told from its steps: a chain of replacements multiplies.

Knows the steps of the tokenizers package that lengthen a text; knows nothing of files, and runs nothing: such a step is
one call into Rust, which no limit of time ends, and which ends the process where the memory does not suffice.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

MOST_GROWTH = 10**5  # letters out of one; those in use make a few


def refuse_growth(core: Any) -> None:
    """Refuse a tokenizer whose steps could make a text, or an answer, too long to be held.

    Args:
        core: a `tokenizers.Tokenizer`, or None.

    Raises:
        ValueError: one letter may become more than MOST_GROWTH.
    """
    if core is None:
        return
    for parts in ((core.normalizer, core.pre_tokenizer), (core.decoder,)):
        growth = 1
        for step in (step for part in parts for step in _steps(part)):
            growth *= _growth(step)
            if growth > MOST_GROWTH:
                raise ValueError(f"it may make more than {MOST_GROWTH:,} letters of one, as by its {step['type']}")


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, in whatever sequences they stand."""
    left = [] if part is None else [json.loads(part.__getstate__())]
    while left:
        step = left.pop()
        inner = [one for value in step.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
        left += inner
        if not inner:
            yield step


def _growth(step: dict[str, Any]) -> int:
    """How many letters a step makes of one at most."""
    match step:
        case {"type": "Replace", "pattern": {"String": str(pattern)}, "content": str(content)} if pattern:
            return max(1, -(-len(content) // len(pattern)))
        case {"type": "Replace", "content": str(content)}:  # also where nothing stands: between any two letters
            return 1 + len(content)
        case {"type": "Precompiled", "precompiled_charsmap": str(coded)}:
            mapped = base64.b64decode(coded)
            mapped = mapped[4 + int.from_bytes(mapped[:4], "little") :]  # behind its trie: texts, each with a NUL
            return max(1, *map(len, mapped.split(b"\0")))
        case {"type": "ByteLevel"}:
            return 2  # a letter for each byte, most of which are two bytes again
    return 1
