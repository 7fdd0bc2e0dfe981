"""How a run was begun: its command, flags and settings, kept beside its record, so that a branch can begin likewise.

Knows flags and files; knows nothing of models or data.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_model.config import LessonConfig
from apt_model.errors import ConfigError, StorageError, reason_of
from apt_model.events.runfile import EVENTS, write_json
from apt_model.ranks.group import ranks

BEGUN = "command.json"
SCHEMA = 1
# Flags of `distill` that say what is learned from, and how; the settings are kept apart.
FLAGS = (
    *("teacher", "teacher_dtype", "teacher_quantization", "teacher_cache", "student", "lora", "data", "split"),
    *("text_column", "columns", "batch_size", "validation_data", "validation_split", "packing", "streaming", "plain"),
)
PLACES = ("teacher", "teacher_cache", "student", "data", "validation_data")  # may be paths


@dataclass(frozen=True, kw_only=True)
class Begun:
    """How a run was begun.

    Attributes:
        command: `demo` or `distill`.
        flags: those that are no settings, as they were typed.
        settings: all, as flat keys.
        directory: the current one at that time, from which relative paths lead.
    """

    command: str
    flags: Mapping[str, Any]
    settings: Mapping[str, Any]
    directory: Path

    def keep(self, out: Path) -> None:
        """Write it beside the record that is to be, on rank 0.

        Raises:
            StorageError: it cannot be written.
        """
        kept = {"schema": SCHEMA, "command": self.command, "directory": str(self.directory)}
        with ranks().agreed("keep how the run was begun"):
            if not ranks().is_first:
                return
            try:
                write_json(out / BEGUN, {**kept, "flags": dict(self.flags), "settings": dict(self.settings)})
            except (OSError, ValueError) as error:
                raise StorageError(f"{out / BEGUN} cannot be written", got=reason_of(error)) from error

    @classmethod
    def read(cls, run: Path) -> "Begun":
        """How a run was begun.

        Raises:
            StorageError: there is no run, or what it was begun with cannot be read.
            ConfigError: the run does not tell: it was begun by Python code, or by an earlier version.
        """
        path = run / BEGUN
        if not (run / EVENTS).exists():
            raise StorageError(f"{run} holds no run to branch from", fix="check the path")
        if not path.exists():
            what = f"{run} does not tell which models and data it was begun with: there is no {BEGUN} in it"
            fix = "branch it in Python, with the same models and data: branch_from=RUN, branch_at=STEP"
            raise ConfigError(what, fix=fix)
        try:
            held = json.loads(path.read_text("utf-8"))
            if held["schema"] != SCHEMA:
                raise ValueError(f"schema {held['schema']}, not {SCHEMA}")
            begun = cls(
                command=str(held["command"]),
                flags=dict(held["flags"]),
                settings=dict(held["settings"]),
                directory=Path(held["directory"]),
            )
        except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise StorageError(f"{path} cannot be read", got=reason_of(error)) from error
        return begun

    def with_settings(self, config: LessonConfig) -> "Begun":
        """The same with other settings, from the current directory: that of a branch."""
        return Begun(command=self.command, flags=self.placed(), settings=config.to_dict(), directory=Path.cwd())

    def placed(self) -> dict[str, Any]:
        """The flags, with paths that are relative to another directory than the current one made absolute."""
        return {name: self._placed(value) if name in PLACES else value for name, value in self.flags.items()}

    def _placed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._placed(one) for one in value]
        if not isinstance(value, str) or self.directory == Path.cwd() or not (self.directory / value).exists():
            return value
        return str(self.directory / value)


def begun_by(command: str, arguments: argparse.Namespace, config: LessonConfig) -> Begun:
    """How a command begins its run."""
    flags = {name: getattr(arguments, name) for name in FLAGS if hasattr(arguments, name)}
    return Begun(command=command, flags=flags, settings=config.to_dict(), directory=Path.cwd())
