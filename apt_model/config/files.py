"""A file of settings, TOML, YAML or JSON by its ending, as a dict. Knows nothing of what the keys mean."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from apt_model.errors import ConfigError, brief, reason_of

WHOLE = re.compile(r"^(?:[-+]?\d+|0x[0-9a-fA-F]+|0o[0-7]+)$")
NUMBER = re.compile(
    r"^(?:[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
TRUE = ("yes", "on", "true")
LARGEST = 2**18  # bytes
MOST_TOLD = 20  # mistakes of a file, in the line that refuses it
PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
LONG_KEY = re.compile(rf"(?:^|[{{,\[])[ \t]*+(?:{PART}\.[ \t]*+){{32}}(?=[^=\n]*[=\]])", re.MULTILINE)
WORDS = re.compile(r"^(?:yes|no|on|off)$", re.IGNORECASE)

OF_PAIRS = ("columns", "lora", "student")  # what may be a mapping: the flag takes KEY=VALUE


class Word(str):
    """`yes`, `no`, `on` or `off` as YAML has them: truth for a switch, a word for any other setting."""

    @property
    def is_true(self) -> bool:
        """What it says as truth."""
        return self.lower() in TRUE


def read_file(path: str | Path) -> dict[Any, Any]:
    """The keys and values of a file, which are flat; no key may stand in it twice. A dash in a key is an underscore.

    Of YAML, numbers are those of YAML 1.2, `1e-4` among them; `no`, `off`, `yes` and `on` are each a `Word`.

    Raises:
        ConfigError: the file cannot be read, is no TOML, YAML (.yaml, .yml) or JSON (.json), or holds sections.
    """
    content = read_small("config file", path)
    kind, parse = _PARSERS.get(Path(path).suffix.lower(), ("TOML", read_toml))
    try:
        values = parse(content.decode("utf-8-sig"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # their own, no UTF-8, too long, brackets too deep
        got = " ".join(str(error).split())[:200]
        raise ConfigError(f"config file {path} is not valid {kind}", got=got) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} has no keys", got=brief(values), expected="temperature: 4.0")
    _refuse_sections(values, path)
    named = {key.replace("-", "_") if isinstance(key, str) else key: value for key, value in values.items()}
    if len(named) < len(values):
        raise ConfigError(f"config file {path} has a key twice, with a dash and with an underscore")
    return named


def read_small(what: str, path: str | Path) -> bytes:
    """The bytes of a file that people write by hand.

    Raises:
        ConfigError: it is none, such as a pipe or a device, cannot be read, or is larger than LARGEST.
    """
    named = f"{what} {brief(str(path))}"
    try:
        if Path(path).exists() and not Path(path).is_file():
            got = "a directory" if Path(path).is_dir() else "a pipe, a socket or a device"
            raise ConfigError(f"{named} cannot be read", got=got, expected="a file")
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no path at all, with a zero byte in it
        raise ConfigError(f"{named} cannot be read", got=reason_of(error)) from error
    if len(content) > LARGEST:
        raise ConfigError(f"{named} is too large", got=f"more than {LARGEST:,} bytes")
    return content


def read_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text.

    Raises:
        ValueError: no TOML, or a key of so many parts that the parser would take hours. RecursionError: too deep.
    """
    if LONG_KEY.search(text):
        raise ValueError("a key has too many parts")
    return tomllib.loads(text)


def _refuse_sections(values: Mapping[Any, Any], path: str | Path) -> None:
    found = {str(key): value for key, value in values.items() if isinstance(value, Mapping) and key not in OF_PAIRS}
    if sections := list(found):
        within = ", ".join(str(key) for value in found.values() for key in value)
        got, fix = f"{', '.join(sections)} with {within}"[:200], "write these keys outside any section"
        raise ConfigError(f"config file {path} has sections, and settings are flat here", got=got, fix=fix)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Plain YAML: no tag makes an object, no key stands twice, and scalars are read as in YAML 1.2."""

    yaml_implicit_resolvers: ClassVar = {  # without PyYAML's words for truth, 010 as eight, 1:30 as ninety, and dates
        first: [one for one in some if one[0].rpartition(":")[2] not in ("bool", "int", "float", "timestamp")]
        for first, some in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar = {  # of the others, some raise whatever comes on what is not theirs
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "float", "str", "seq", "map")
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As of the base class, but a repeated key is an error."""
        merged = "tag:yaml.org,2002:merge"
        if isinstance(node, yaml.MappingNode):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merged]
            _refuse_twice([key for key in keys if isinstance(key, str)])
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def _words_of_yaml(loader: _Loader, node: yaml.ScalarNode) -> Word:
    return Word(loader.construct_scalar(node))


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    word: str = loader.construct_scalar(node).lower()
    if word not in ("true", "false"):
        raise ValueError(f"{brief(word)} is neither true nor false")
    return word == "true"


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    digits: str = loader.construct_scalar(node)
    return int(digits, {"0x": 16, "0o": 8}.get(digits[:2], 10))


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver("!word", WORDS, list("yYnNoO"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:bool", _truth)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("!word", _words_of_yaml)


def _refuse_twice(keys: Sequence[str]) -> None:
    twice = sorted(key for key, count in Counter(keys).items() if count > 1)
    if twice:
        raise ValueError(f"{', '.join(twice[:MOST_TOLD])} stands in it twice")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice([key for key, _ in pairs])
    return dict(pairs)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a safe one


def _read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_pairs)


_PARSERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    ".yaml": ("YAML", _read_yaml),
    ".yml": ("YAML", _read_yaml),
    ".json": ("JSON", _read_json),
}
