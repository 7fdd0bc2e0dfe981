"""Configuration of a run, from a dict, an object, a file or flags; `sections` has the settings themselves.

Keys are flat (`{"temperature": 4.0, "sample_frequency": 50}`): no two sections share one, so a user need not know the
sections. Names of other trainers are taken or answered (`names`). Knows nothing of models, data or screens.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from apt_model.config.files import MOST_TOLD, Word, read_file
from apt_model.config.names import IN_THE_CALL
from apt_model.config.sections import DisplayConfig, DistillConfig, Section, TrainConfig
from apt_model.config.translate import suggestion, translated
from apt_model.errors import ConfigError, brief

PRESETS: Mapping[str, Mapping[str, int | bool]] = {
    "teaching": {"sample_frequency": 5, "max_text_length": 150, "show_diff": True},
    "production": {"sample_frequency": 200, "max_text_length": 50, "show_diff": False},
    "debug": {"sample_frequency": 1, "max_text_length": 200, "show_diff": True},
}
WEIGHTS = {"alpha", "beta"}


class LessonConfig(BaseModel):
    """All settings of a run: the three sections, built from flat keys by `from_dict` or `from_file`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distill: DistillConfig = DistillConfig()
    train: TrainConfig = TrainConfig()
    display: DisplayConfig = DisplayConfig()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None = None) -> "LessonConfig":
        """Settings from flat keys; `preset` ("teaching", "production", "debug") sets display keys that are not given.

        Keys may be those of other trainers, as far as `names` takes them.

        Raises:
            ConfigError: names every unknown key and every bad value at once.
        """
        if not isinstance(values, Mapping | None):
            raise ConfigError("settings are not a mapping", got=brief(values), expected='{"temperature": 4.0, ...}')
        values, problems = translated(values or {})
        values = {**_preset(values.pop("preset", None)), **values}
        homes = {key: section for section, key, _ in settings()}
        values = {key: _word(key, value) if isinstance(value, Word) else value for key, value in values.items()}
        unknown = [key for key in values if key not in homes]
        problems += [_unknown(key, homes) for key in unknown[:MOST_TOLD]]
        sections: dict[str, Section] = {}
        for name, kind in _sections().items():
            try:
                sections[name] = kind.model_validate({k: v for k, v in values.items() if homes.get(k) == name})
            except ValidationError as error:
                problems += _explain(error)
        _refuse(problems, len(unknown[MOST_TOLD:]))
        return cls(**sections)

    @classmethod
    def from_file(cls, path: str | Path, defaults: Mapping[str, Any] | None = None, **overrides: Any) -> "LessonConfig":
        """Settings from a TOML, YAML or JSON file of flat keys; `overrides` win over it, and it over `defaults`.

        Raises:
            ConfigError: as `read_file` and `from_dict`.
        """
        return cls.from_layers(defaults or {}, read_file(path), overrides)

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> "LessonConfig":
        """Settings from several mappings, of which the later ones win.

        Raises:
            ConfigError: as `from_dict`.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        for layer in layers:
            own, wrong = translated(layer)
            problems += wrong
            if len(WEIGHTS & own.keys()) == 1:  # the one given fixes the other, whatever was below
                values = {key: value for key, value in values.items() if key not in WEIGHTS}
            values |= own
        _refuse(problems)
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as flat keys, from which `from_dict` makes the same config."""
        return {key: getattr(getattr(self, section), key) for section, key, _ in settings()}


def settings() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting as (section, key, field); the command line makes its flags of them."""
    for section, kind in _sections().items():
        for key, field in kind.model_fields.items():
            yield section, key, field


def _refuse(problems: Sequence[str], untold: int = 0) -> None:
    """Refuse settings in one line, of bearable length, of their first mistakes."""
    untold += len(problems[MOST_TOLD:])
    if problems:
        raise ConfigError("; ".join([*problems[:MOST_TOLD], *([f"and {untold:,} more"] if untold else [])]))


def _sections() -> dict[str, type[Section]]:
    return {"distill": DistillConfig, "train": TrainConfig, "display": DisplayConfig}


def _preset(name: object) -> Mapping[str, Any]:
    if name is None:
        return {}
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError("preset is unknown", got=brief(name), expected=", ".join(PRESETS))
    return PRESETS[name]


def _word(key: object, word: Word) -> str | bool:
    is_switch = any(key == one and field.annotation is bool for _, one, field in settings())
    return word.is_true if is_switch else str(word)


def _unknown(key: object, known: Mapping[str, object]) -> str:
    if isinstance(key, str) and key in IN_THE_CALL:
        return f"{key} is no setting: {IN_THE_CALL[key]}"
    close = suggestion(brief(key).strip("'"), [*known, "preset"])
    return f"unknown key {brief(key)}" + (f" (did you mean {close!r}?)" if close else "")


def _explain(error: ValidationError) -> list[str]:
    return [_explain_one(dict(problem)) for problem in error.errors(include_url=False)]


def _explain_one(problem: Mapping[str, Any]) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    wanted = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ").removeprefix("a ")
    wanted = "list" if wanted == "tuple" else wanted
    got = problem["input"]
    key = problem["loc"][0]
    hint = "; try alpha=0.7, beta=0.3" if key in ("alpha", "beta") else ""
    return f"{key}: got {brief(got)} ({type(got).__name__}), expected {wanted}{hint}"
