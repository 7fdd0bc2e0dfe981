"""The settings that a plugin is given: flat keys, a `LessonConfig`, or another trainer's object; and those of its call.

Knows nothing of models, data or screens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from apt_model.config import LessonConfig
from apt_model.config.translate import read_object, translated
from apt_model.data.notices import KeyedNotice
from apt_model.errors import ConfigError
from apt_model.i18n import Phrases

CALL_ARGUMENTS = ("num_epochs", "device")
USUAL_DEVICE = "cuda"  # replaced by the CPU, with a notice, where this machine lacks it


@dataclass(frozen=True, kw_only=True)
class Given:
    """The `config` argument of a plugin, read.

    Attributes:
        config: the settings.
        run_dir: the directory that an object names for its output, or None.
        notices: told once a run: what an object sets, and something else decides here.
    """

    config: LessonConfig
    run_dir: str | None = None
    notices: tuple[KeyedNotice, ...] = ()

    @classmethod
    def of(cls, config: Any) -> "Given":
        """From flat keys, a `LessonConfig`, or an object such as transformers' `TrainingArguments`.

        Raises:
            ConfigError: a setting is unknown, out of range, or one of `CALL_ARGUMENTS`; the locale cannot be
                loaded; or as `read_object`.
        """
        given = cls._of_object(config)
        Phrases.load(given.config.display.lang)
        return given

    @classmethod
    def _of_object(cls, config: Any) -> "Given":
        if isinstance(config, LessonConfig):
            return cls(config=config)
        if config is None or isinstance(config, Mapping):
            values, _ = translated(config or {})
            misplaced = [key for key in CALL_ARGUMENTS if key in values]
            if misplaced:
                fix = "pass it to the call, e.g. num_epochs=3"
                raise ConfigError(f"{', '.join(misplaced)} cannot be in config", fix=fix)
            return cls(config=LessonConfig.from_dict(config))
        found = read_object(config, LessonConfig().to_dict())
        said: list[KeyedNotice] = [("notice.decided_elsewhere", {"what": ", ".join(found.outside)})]
        lesson = LessonConfig.from_dict(found.values)
        return cls(config=lesson, run_dir=found.run_dir, notices=tuple(said) if found.outside else ())

    def with_call(self, *, num_epochs: int | None, device: str | torch.device | None) -> LessonConfig:
        """The settings together with the arguments of the call, which win; None leaves it to the settings.

        Raises:
            ConfigError: one of them is out of range.
        """
        usual = USUAL_DEVICE if self.config.train.device == "auto" else self.config.train.device
        values = {**self.config.to_dict(), "device": usual if device is None else str(device)}
        return LessonConfig.from_dict(values if num_epochs is None else {**values, "num_epochs": num_epochs})


def read_config(config: Any) -> LessonConfig:
    """The settings in the `config` argument of a plugin, as `Given.of`."""
    return Given.of(config).config
