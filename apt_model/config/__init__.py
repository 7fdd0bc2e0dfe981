"""Configuration of a run, from a dict, a TOML file, or command-line flags; `sections` has the settings themselves.

Keys are flat (`{"temperature": 4.0, "sample_frequency": 50}`): no two sections share one, so a user need not know the
sections. Knows nothing of models, data or screens.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from apt_model.config.sections import DisplayConfig, DistillConfig, Section, TrainConfig
from apt_model.errors import ConfigError, brief

PRESETS: Mapping[str, Mapping[str, int | bool]] = {
    "teaching": {"sample_frequency": 5, "max_text_length": 150, "show_diff": True},
    "production": {"sample_frequency": 200, "max_text_length": 50, "show_diff": False},
    "debug": {"sample_frequency": 1, "max_text_length": 200, "show_diff": True},
}


class LessonConfig(BaseModel):
    """All settings of a run: the three sections, built from flat keys by `from_dict` or `from_toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distill: DistillConfig = DistillConfig()
    train: TrainConfig = TrainConfig()
    display: DisplayConfig = DisplayConfig()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None = None) -> "LessonConfig":
        """Settings from flat keys; `preset` ("teaching", "production", "debug") sets display keys that are not given.

        Raises:
            ConfigError: names every unknown key and every bad value at once.
        """
        if not isinstance(values, Mapping | None):
            raise ConfigError("settings are not a mapping", got=brief(values), expected='{"temperature": 4.0, ...}')
        values = dict(values or {})
        values = {**_preset(values.pop("preset", None)), **values}
        homes = {key: section for section, key, _ in settings()}
        problems = [_unknown(key, homes) for key in values if key not in homes]
        sections: dict[str, Section] = {}
        for name, kind in _sections().items():
            try:
                sections[name] = kind.model_validate({k: v for k, v in values.items() if homes.get(k) == name})
            except ValidationError as error:
                problems += _explain(error)
        if problems:
            raise ConfigError("; ".join(problems))
        return cls(**sections)

    @classmethod
    def from_toml(cls, path: str | Path, defaults: Mapping[str, Any] | None = None, **overrides: Any) -> "LessonConfig":
        """Settings from a TOML file of flat keys; `overrides` win over the file, and the file over `defaults`.

        Raises:
            ConfigError: the file cannot be read or is not TOML; else as `from_dict`.
        """
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: no path at all, with a zero byte in it
            got = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"config file {brief(str(path))} cannot be read", got=got) from error
        try:
            values = tomllib.loads(content.decode())
        except (ValueError, RecursionError) as error:  # tomllib's own, no UTF-8, a number too long, brackets too deep
            raise ConfigError(f"config file {path} is not valid TOML", got=str(error)[:200]) from error
        weights = {"alpha", "beta"}
        if len(weights & overrides.keys()) == 1:  # the one given fixes the other, whatever the file says
            values = {key: value for key, value in values.items() if key not in weights}
        return cls.from_dict({**(defaults or {}), **values, **overrides})

    def to_dict(self) -> dict[str, Any]:
        """The settings as flat keys, from which `from_dict` makes the same config."""
        return {key: getattr(getattr(self, section), key) for section, key, _ in settings()}


def settings() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting as (section, key, field); the command line makes its flags of them."""
    for section, kind in _sections().items():
        for key, field in kind.model_fields.items():
            yield section, key, field


def _sections() -> dict[str, type[Section]]:
    return {"distill": DistillConfig, "train": TrainConfig, "display": DisplayConfig}


def _preset(name: object) -> Mapping[str, Any]:
    if name is None:
        return {}
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError("preset is unknown", got=brief(name), expected=", ".join(PRESETS))
    return PRESETS[name]


def _unknown(key: object, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(brief(key).strip("'"), [*known, "preset"], n=1)
    return f"unknown key {brief(key)}" + (f" (did you mean {close[0]!r}?)" if close else "")


def _explain(error: ValidationError) -> list[str]:
    return [_explain_one(dict(problem)) for problem in error.errors(include_url=False)]


def _explain_one(problem: Mapping[str, Any]) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    wanted = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ").removeprefix("a ")
    got = problem["input"]
    key = problem["loc"][0]
    hint = "; try alpha=0.7, beta=0.3" if key in ("alpha", "beta") else ""
    return f"{key}: got {brief(got)} ({type(got).__name__}), expected {wanted}{hint}"
