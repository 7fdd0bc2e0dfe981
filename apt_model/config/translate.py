"""Values under the names that people type → values under ours, by the one table in `names`.

Knows names; knows nothing of files or flags, nor of whether a value is in its range.
"""

import dataclasses
import difflib
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

from apt_model.config.files import Word
from apt_model.config.names import NAMES
from apt_model.errors import ConfigError, brief

FILLED_IN = "trainer_output"  # by transformers, where no output_dir is given
Spell = Callable[[str], str]


def as_key(name: str) -> str:
    """A name of ours, as a dict or a file has it."""
    return name


class _Spelled(dict[str, str]):
    """Our names as an answer shows them: keys of a dict, or flags."""

    def __init__(self, spell: Spell) -> None:
        super().__init__()
        self._spell = spell

    def __missing__(self, name: str) -> str:
        return self._spell(name)


def answer(name: str, value: Any, spell: Spell = as_key) -> str:
    """What is said to who gives a name, or a value under it, that is not taken."""
    said = NAMES[name].answer.format_map(_Spelled(spell))
    given = "" if value is True else f" {brief(value)}"
    return f"{spell(name)}{given}: {said}"


def translated(
    values: Mapping[Any, Any], spell: Spell = as_key, *, beside: Iterable[str] = ()
) -> tuple[dict[Any, Any], list[str]]:
    """Values under our names, and a line for each that is not taken; a name that nobody knows stays as it is.

    Args:
        values: by the names that were typed. None under another's name says nothing.
        spell: how a line shows a name.
        beside: our names that were given elsewhere, and may not be given twice.
    """
    beside = set(beside)
    found: dict[Any, Any] = {}
    source: dict[Any, Any] = {name: name for name in beside}
    among = {*values, *beside}
    problems = _of_two_meanings(among, spell)
    for name, value in values.items():
        for key, ours in _meant(name, _plain(value, name), among, problems, spell).items():
            before = found.get(key)
            if key not in source or (isinstance(before, Mapping) and isinstance(ours, Mapping)):
                found[key] = {**before, **ours} if isinstance(before, Mapping) else ours
                source[key] = name
            elif key not in found or before != ours:
                problems.append(f"{spell(source[key])} and {spell(name)} are one setting here, and were given twice")
    return {key: joined(value) if key in ("lora", "student") else value for key, value in found.items()}, problems


def _meant(name: Any, value: Any, among: set[Any], problems: list[str], spell: Spell) -> Mapping[Any, Any]:
    known = NAMES.get(name) if isinstance(name, str) else None
    if known is None:
        return {name: value}
    if value is None:
        return {name: None} if name == known.ours else {}
    if name == "warmup_steps" and not value and "warmup_ratio" in among:  # transformers: 0 leaves it to the ratio
        return {}
    settings = known.takes(value)
    if settings is None:
        problems.append(answer(name, value, spell))
    return settings or {}


def _of_two_meanings(names: Iterable[Any], spell: Spell) -> list[str]:
    """A line where TRL's names for GKD stand beside ours: beta and temperature mean something else there."""
    if "lmbda" not in names:
        return []
    said = {
        "beta": "is the labels' weight here, and TRL's β is our {mixture}, with {loss_kind}=jsd and {alpha}=1",
        "temperature": "divides the logits here, and TRL's is our {on_policy_temperature}",
    }
    fix = "; beside {on_policy}, our name for {lmbda}, it has our meaning"
    return [f"{spell(name)} {(what + fix).format_map(_Spelled(spell))}" for name, what in said.items() if name in names]


def _plain(value: Any, name: Any = None) -> Any:
    """A value of an enum by its value; YAML's `no` as truth where a name of others' is a switch."""
    if isinstance(value, Word) and name in NAMES:
        return value.is_true if NAMES[name].is_switch else str(value)
    return value.value if isinstance(value, Enum) else value


def joined(parts: Any) -> Any:
    """The description of an adapter or a student from its parts: {"r": 16, "alpha": 32} → "r=16,alpha=32"."""
    if not isinstance(parts, Mapping):
        return parts
    values = {name: "+".join(map(str, one)) if isinstance(one, list | tuple) else one for name, one in parts.items()}
    return ",".join(f"{name}={value}" for name, value in values.items())


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """Our name that comes closest to a misspelt one, also by the names that others have for it; None if none does."""
    ours = {**{theirs: entry.ours or theirs for theirs, entry in NAMES.items()}, **{one: one for one in known}}
    close = difflib.get_close_matches(name, ours, n=1)
    return ours[close[0]] if close else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfObject:
    """Values of a settings object under our names.

    Attributes:
        values: settings.
        run_dir: the directory that it names for the output, or None.
        outside: what cannot be honoured and cannot change what the student learns, each as "name=value".
    """

    values: Mapping[str, Any]
    run_dir: str | None
    outside: tuple[str, ...]


def read_object(given: object, settings: Iterable[str]) -> OfObject:
    """The settings in an object such as transformers' `TrainingArguments`, a dataclass, or any with attributes.

    Of a dataclass, what is not ours and stands at its default says nothing. TRL's configs for GKD have a meaning of
    their own for beta and temperature, and are taken in it.

    Args:
        given: the object.
        settings: our names that stand in it whatever their value.

    Raises:
        ConfigError: no such object; or names each value that cannot be honoured.
    """
    usual = _defaults(given)
    values = {name: _plain(getattr(given, name)) for name in usual} if usual else _attributes(given)
    values = _of_gkd(values) if {"lmbda", "beta"} <= values.keys() else values
    ours = set(settings)
    wanted = {name: value for name, value in values.items() if not _says_nothing(name, value, usual, ours)}
    outside = [name for name, value in wanted.items() if _is_outside(name, value)]
    taken, problems = translated({name: value for name, value in wanted.items() if name not in outside})
    if problems:
        raise ConfigError("; ".join(problems))
    said = tuple(f"{name}={brief(wanted[name])}" for name in outside)
    return OfObject(values=taken, run_dir=taken.pop("out", None), outside=said)


def _attributes(given: object) -> dict[str, Any]:
    if isinstance(given, type | ModuleType) or callable(given) or not hasattr(given, "__dict__"):
        expected = '{"temperature": 4.0, ...}, or an object such as TrainingArguments'
        raise ConfigError("settings are not a mapping", got=brief(given), expected=expected)
    kind = type(given)
    plain = [one for one in reversed(kind.__mro__) if one is not object] if type(kind) is type else []
    of_class = {name: value for one in plain for name, value in vars(one).items() if not hasattr(value, "__get__")}
    found = {name: value for name, value in {**of_class, **vars(given)}.items() if not name.startswith("_")}
    if not found and kind not in (Namespace, SimpleNamespace):
        expected = "attributes such as temperature, or a mapping"
        raise ConfigError("settings hold no attribute that can be read", got=brief(given), expected=expected)
    return found


def _defaults(given: object) -> dict[str, Any]:
    """The fields of a dataclass and their defaults; MISSING where there is none. Empty for other objects."""
    if isinstance(given, type) or not dataclasses.is_dataclass(given):
        return {}
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(given)
    }


def _says_nothing(name: str, value: Any, usual: Mapping[str, Any], settings: set[str]) -> bool:
    """Whether a value is no setting and says nothing: None, its default, or as empty as its default."""
    known = NAMES.get(name)
    if value is None and name in settings and usual.get(name) is not None:  # such as max_grad_norm: off
        return False
    if value is None or (name == "output_dir" and value == FILLED_IN):
        return True
    if name not in usual or (known.ours if known else name) in settings:
        return False
    is_made_anew = dataclasses.is_dataclass(value) and not isinstance(value, type)  # accelerate's, filled in late
    is_empty = isinstance(value, str | list | tuple | dict) and not value and not usual[name]
    return bool(value == _plain(usual[name]) or is_made_anew or is_empty)


def _is_outside(name: str, value: Any) -> bool:
    """Whether a value cannot be honoured nor change the student; the data loader that is passed has its batches."""
    known = NAMES.get(name)
    ours = known.ours if known is not None else name
    return ours == "batch_size" or (known is not None and known.is_outside and known.takes(value) is None)


def _of_gkd(values: Mapping[str, Any]) -> dict[str, Any]:
    """The loss of TRL's GKDConfig in our names: no labels, at temperature 1; beta mixes, temperature draws."""
    own = {"beta", "temperature", "lmbda", "max_new_tokens"}
    mixture = values["beta"]
    kind = {0: "forward_kl", 1: "reverse_kl"}.get(mixture, "jsd")
    meant = {"alpha": 1.0, "temperature": 1.0, "loss_kind": kind, "on_policy": values["lmbda"]}
    meant |= {"mixture": mixture} if kind == "jsd" else {}
    meant |= {"on_policy_temperature": values["temperature"]} if "temperature" in values else {}
    meant |= {"on_policy_tokens": values["max_new_tokens"]} if "max_new_tokens" in values else {}
    return {**{name: value for name, value in values.items() if name not in own}, **meant}
