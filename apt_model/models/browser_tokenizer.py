"""The tokenizers that the browser page runs by itself: read from `tokenizer.json`, as a plain JSON value.

Knows tokenizers' files; knows nothing of who runs them. Three kinds are taken: one token a character, sentencepiece's
BPE with bytes for unknown characters, and byte-level BPE with one of the known patterns.
"""

import json
from collections.abc import Mapping
from typing import Any

KINDS = "one token a character, BPE with byte fallback, or byte-level BPE (GPT-2, Llama 3, Qwen 2)"
_PATTERNS = {  # known by name to dashboard/worker/tokenizer.js
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama3",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
_METASPACE = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
_FROM_METASPACE = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
]


class UnknownTokenizerError(ValueError):
    """A tokenizer of a kind that the browser page does not run; says what kind."""


def browser_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """What dashboard/worker/tokenizer.js needs to encode and decode exactly as this tokenizer does.

    Raises:
        UnknownTokenizerError: another kind of tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnknownTokenizerError(f"a tokenizer without tokenizer.json ({type(tokenizer).__name__})")
    spec = json.loads(backend.to_str())
    model, added = spec["model"], spec["added_tokens"]
    if any(one["lstrip"] or one["rstrip"] or one["single_word"] for one in added):
        raise UnknownTokenizerError("a tokenizer whose special tokens take the spaces around them")
    if any(one["normalized"] for one in added) and spec["normalizer"] is not None:
        raise UnknownTokenizerError("a tokenizer whose special tokens are found in changed text")
    own = _kind_of(spec, model)
    vocabulary: list[str | None] = [None] * (max([*model["vocab"].values(), *(one["id"] for one in added)]) + 1)
    for token, at in [*model["vocab"].items(), *((one["content"], one["id"]) for one in added)]:
        vocabulary[at] = token
    special = [one["id"] for one in added if one["special"]]
    return {
        **own,
        "vocabulary": vocabulary,
        "added": [[one["content"], one["id"]] for one in added],
        "special": special,
    }


def _kind_of(spec: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    kind, parts = model["type"], (spec["normalizer"], spec["pre_tokenizer"], spec["decoder"])
    letters = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    if kind == "WordLevel" and parts == (None, letters, {"type": "Fuse"}):
        return {"kind": "characters", "unknown": model["unk_token"]}
    if kind == "BPE":
        plain = not (model["dropout"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"])
        merges = [one.split(" ") if isinstance(one, str) else one for one in model["merges"]]
        pieces = {"merges": merges, "whole_first": model["ignore_merges"], "unknown": model["unk_token"]}
        sequences = [part and part.get("normalizers", part.get("decoders")) for part in parts]
        is_metaspace = sequences == [_METASPACE, None, _FROM_METASPACE] and model["byte_fallback"] and model["fuse_unk"]
        if plain and is_metaspace:
            return {"kind": "metaspace", **pieces}
        pattern = _byte_level_pattern(parts[1]) if plain and parts[2] and parts[2]["type"] == "ByteLevel" else None
        if pattern is not None and parts[0] in (None, {"type": "NFC"}) and not model["byte_fallback"]:
            return {"kind": "bytes", "pattern": pattern, "composes": parts[0] is not None, **pieces}
    names = [str(part and part["type"]) for part in parts]
    raise UnknownTokenizerError(f"a {kind} tokenizer with normalizer {names[0]}, pre-tokenizer {names[1]}")


def _byte_level_pattern(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """The name of the pattern by which byte-level BPE cuts a text into words; None if it is not known here."""
    first, *rest = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    if first is None or (rest and rest[0]["type"] != "ByteLevel") or len(rest) > 1:
        return None
    if not rest:
        return "gpt2" if first["type"] == "ByteLevel" and first["use_regex"] and not first["add_prefix_space"] else None
    if first["type"] != "Split" or first["behavior"] != "Isolated" or first["invert"]:
        return None
    return None if rest[0]["use_regex"] or rest[0]["add_prefix_space"] else _PATTERNS.get(first["pattern"].get("Regex"))
