"""Which transformers a model was saved by, and whether it is newer than the one installed here."""

from typing import Any

from packaging.version import InvalidVersion, Version
from transformers import PretrainedConfig, __version__

INSTALLED = __version__


def newer_version(config: Any) -> str | None:
    """The version of transformers that a config was saved by, if it is newer than the one here; else None."""
    saved = getattr(config, "transformers_version", None)
    try:
        return saved if isinstance(saved, str) and Version(saved) > Version(INSTALLED) else None
    except InvalidVersion:
        return None


def needed_version(source: str, **how: Any) -> str | None:
    """`newer_version` of a directory or hub id whose model, or even its config, cannot be loaded."""
    try:
        read, _ = PretrainedConfig.get_config_dict(source, **how)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return newer_version(PretrainedConfig(transformers_version=read.get("transformers_version")))


def upgrade(version: str) -> str:
    """The command that installs at least this version of transformers."""
    return f"pip install -U 'transformers>={version}'"
