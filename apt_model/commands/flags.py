"""Words of a command line as people type them → the words of our flags. Knows names; knows nothing of what flags do.

Underscores stand for dashes, names of other trainers for ours (`apt_model.config.names`), and the keys of a config file
that are no settings for flags.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from apt_model.config import settings
from apt_model.config.files import read_file
from apt_model.config.names import NAMES
from apt_model.config.translate import joined, suggestion, translated
from apt_model.errors import ConfigError

OTHER_NAMES = {"dashboard": "--watch"}  # settings whose flag has another name: here that of the command it starts
TRUTH = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
CONFIG = "--config"
ONE_OF = ({"validation_data", "validation_split"}, {"columns", "text_column"})  # one is typed: the file has neither
NO_KEYS = ("help", "help_all", "config")  # flags that say nothing in a file


@dataclass(kw_only=True)
class Translation:
    """Words in our flags.

    Attributes:
        words: flags and values, the file's before those that were typed, which win.
        direct: values that no word can give, such as max_steps None for -1.
        settings: those of the config file, under our names; None where there is no file.
    """

    words: list[str]
    direct: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[Any, Any] | None = None


@dataclass
class _Typed:
    """What was typed: words of our own flags, and values under the names of others."""

    words: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)


def flag_of(key: str) -> str:
    """The flag of a name: `max_length` → `--max-length`."""
    return OTHER_NAMES.get(key, "--" + key.replace("_", "-"))


def in_our_flags(words: Sequence[str], own: Mapping[str, bool], command: str, *, takes_words: bool) -> Translation:
    """The words of a command line in the flags of its command.

    Args:
        words: as typed, without the command's name.
        own: the command's flags, and whether each takes a value.
        command: its name, for errors.
        takes_words: whether it takes words without a flag, which may follow a switch.

    Raises:
        ConfigError: a flag that nobody knows, one that is not taken, or a config file that cannot be read.
    """
    typed = _read(words, own, command, takes_words=takes_words)
    values, problems = translated(typed.values, flag_of, beside=typed.own - typed.values.keys())
    problems += [_lacking(key, typed.values, command) for key in values if flag_of(key) not in own]
    if problems:
        raise ConfigError("; ".join(problems))
    path = _value_of(CONFIG, typed.words) if CONFIG in own else None
    from_file, rest = _of_file(path, own, typed, values.keys()) if path is not None else ({}, None)
    if any(name.startswith("lora_") for name in typed.values) and from_file.get("lora"):
        values["lora"] = joined(_pairs(from_file["lora"]) | _pairs(values["lora"]))
    direct = {key: value for key, value in values.items() if not _as_words({key: value}, own)}
    end = typed.words.index("--") if "--" in typed.words else len(typed.words)
    words_of_file, words_typed = _as_words(from_file, own), _as_words(values, own)
    all_words = [*words_of_file, *typed.words[:end], *words_typed, *typed.words[end:]]
    return Translation(words=all_words, direct=direct, settings=rest)


def _pairs(said: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.partition("=") for part in said.split(",")) if name}


def _of_file(
    path: str, own: Mapping[str, bool], typed: _Typed, typed_keys: Collection[str]
) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The file's keys that are flags but no settings, and the others; without those that were typed otherwise."""
    values, problems = translated(read_file(path))
    if problems:
        raise ConfigError(f"config file {path}: {'; '.join(problems)}")
    values = {key: value for key, value in values.items() if not _is_off(key, value, typed)}
    keys = {key for _, key, _ in settings()} | {"preset", *NO_KEYS}
    flags = {key: value for key, value in values.items() if key not in keys and flag_of(str(key)) in own}
    rest = {key: value for key, value in values.items() if key not in flags}
    elsewhere = {*typed.own, *typed_keys} - {"lora"}
    elsewhere |= {key for group in ONE_OF if group & elsewhere for key in group}
    return {key: value for key, value in flags.items() if key not in elsewhere}, rest


def _is_off(key: str, value: Any, typed: _Typed) -> bool:
    """Whether a name of others' was typed as off that, as on, means this very value: `--bf16 false` over bf16."""
    offs = [name for name, said in typed.values.items() if said is False and name in NAMES]
    return any(NAMES[name].takes(True) == {key: value} for name in offs)


def _read(words: Sequence[str], own: Mapping[str, bool], command: str, *, takes_words: bool) -> _Typed:
    typed, rest = _Typed(), list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            typed.words += [word, *rest]
            break
        if not word.startswith("--") or re.search(r"\s", word.partition("=")[0]):
            typed.words.append(word)
            continue
        name, sign, value = word[2:].partition("=")
        key, flag = name.replace("-", "_"), "--" + name.replace("_", "-")
        if key in NAMES and (flag not in own or NAMES[key].ours == key):
            typed.values[key] = _value(key, [value] if sign else _following(key, rest, takes_words))
        elif own.get(flag) is False:
            typed.own.add(key)
            switched = _switched(flag, sign, value, rest, own)
            typed.words += switched
            typed.values |= {} if switched else {key: False}
        elif flag in own:
            typed.own.add(key)
            typed.words.append(flag + sign + value)
        elif own.get(flag.replace("--no-", "--", 1)) is False:
            typed.values[key.removeprefix("no_")] = False
        else:
            raise ConfigError(f"unrecognized arguments: {word[:500]}", fix=_fix(key, own, command))
    return typed


def _following(key: str, rest: list[str], takes_words: bool) -> list[str]:
    """Take the values of a name from the words after it."""
    taken: list[str] = []
    while rest and (not rest[0].startswith("-") or re.match(r"-\.?\d", rest[0])):
        if (
            takes_words
            and NAMES[key].is_switch
            and isinstance(plain(rest[0]), str)
            and NAMES[key].takes(rest[0]) is None
        ):
            break
        taken.append(rest.pop(0))
        if not NAMES[key].several:
            break
    return taken


def _value(key: str, words: list[str]) -> Any:
    if not words and not NAMES[key].is_switch:
        raise ConfigError(f"argument {flag_of(key)}: expected a value")
    if NAMES[key].several and len(words) > 1:
        return words
    return plain(words[0]) if words else True


def plain(text: str) -> Any:
    """A number or truth that a text spells, else the text."""
    if text.lower() in ("true", "false"):
        return TRUTH[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            if kind(text) == kind(text) and str(kind(text)) == text:
                return kind(text)
    return text


def _switched(flag: str, sign: str, value: str, rest: list[str], own: Mapping[str, bool]) -> list[str]:
    """A flag without a value, where a truth was typed behind it: what the truth says."""
    if not sign and rest and rest[0].lower() in TRUTH:
        sign, value = "=", rest.pop(0)
    if not sign:
        return [flag]
    if value.lower() not in TRUTH:
        return [flag + sign + value]
    if TRUTH[value.lower()]:
        return [flag]
    opposite = "--no-" + flag.removeprefix("--")
    return [opposite] if opposite in own else []


def _as_words(values: Mapping[str, Any], own: Mapping[str, bool]) -> list[str]:
    """Values under our names as flags; nothing for those that no flag can say."""
    words: list[str] = []
    for key, value in values.items():
        flag = flag_of(key)
        if value is None or value == ():
            continue
        if isinstance(value, Mapping):
            value = [f"{one}={said}" for one, said in value.items()]
        if isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        elif not own[flag]:
            words += _switched(flag, "=", str(value), [], own)
        else:
            words.append(flag if value == "" else f"{flag}={value}")
    return words


def _value_of(flag: str, words: Sequence[str]) -> str | None:
    """The last value of a flag among words."""
    found = None
    for word, following in pairwise([*words, ""]):
        found = following if word == flag else word.partition("=")[2] if word.startswith(f"{flag}=") else found
    return found or None


def _lacking(key: str, typed: Mapping[str, Any], command: str) -> str:
    theirs = ", ".join(flag_of(name) for name in typed if NAMES[name].ours == key)
    return f"{theirs}: our name is {flag_of(key)}, and `{command}` has no such flag; see {command} --help"


def _fix(key: str, own: Mapping[str, bool], command: str) -> str:
    close = suggestion(key, [flag.removeprefix("--").replace("-", "_") for flag in own if flag.startswith("--")])
    has = close is not None and flag_of(close) in own
    return f"did you mean {flag_of(close)}?" if close and has else f"see {command} --help-all"
