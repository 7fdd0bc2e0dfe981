"""Settings around another trainer: which of ours the callback reads, and whether the trainer's own name a teacher.

Knows the names of settings; knows nothing of models or steps.
"""

from collections.abc import Mapping
from typing import Any

from apt_model.config import LessonConfig, settings
from apt_model.config.translate import translated
from apt_model.errors import ConfigError
from apt_model.plugins.given import read_config

READ = frozenset(
    {
        *("temperature", "alpha", "beta"),  # of the loss on a card, which is another than the trainer's
        "max_length",  # of the rows on the cards
        *("show_samples", "show_diff", "sample_frequency", "reading_frequency", "max_text_length", "given_tokens"),
        *("excellent", "good", "fair"),
        *("lang", "dashboard"),
    }
)
TRAINERS_OWN, ONLY_OURS = "set it in the trainer's own arguments", "leave it out: only visual_distill_model acts on it"
INSTEAD: Mapping[str, str] = {  # what to do about a key that is not read, unless it is one of those two
    "loss_kind": "set beta of TRL's GKDConfig or DistillationConfig",
    "mixture": "set beta of TRL's GKDConfig or DistillationConfig",
    "on_policy": "set lmbda of TRL's GKDConfig",
    "on_policy_tokens": "set max_new_tokens of TRL's GKDConfig",
    "on_policy_temperature": "set temperature of TRL's GKDConfig or DistillationConfig",
    "show_on": "pass the rows to show as probe=",
    "report_to": TRAINERS_OWN,
}
NAMES_A_TEACHER = ("teacher_model_name_or_path", "teacher_server_urls")  # of TRL's trainers with a teacher


def names_a_teacher(trainer_settings: Any) -> bool:
    """Whether a trainer with these settings learns from a teacher model, as with TRL's GKDConfig.

    False for those that learn from labels, preferences or rewards, or from earlier copies of the student.
    """
    return any(hasattr(trainer_settings, name) for name in NAMES_A_TEACHER)


def read_settings(config: Mapping[str, Any] | LessonConfig | None) -> LessonConfig:
    """The callback's settings.

    Raises:
        ConfigError: an unknown or bad setting; or one that the callback does not read: any such key of a mapping, and
            in a `LessonConfig` any such value that is not the default.
    """
    unread = {key: _instead(section, key) for section, key, _ in settings() if key not in READ}
    if isinstance(config, LessonConfig):
        usual = LessonConfig().to_dict()
        given = [key for key, value in config.to_dict().items() if value != usual[key]]
    elif isinstance(config, Mapping):
        given = list(translated(config)[0])
    else:
        given, config = [], LessonConfig.from_dict(config)
    refused = [key for key in given if key in unread]
    if refused:
        raise ConfigError(f"{', '.join(refused)} cannot be in config", fix=_fix({key: unread[key] for key in refused}))
    return read_config(config)


def run_settings(config: LessonConfig) -> dict[str, Any]:
    """The settings that the callback reads, as flat keys for the record."""
    return {key: value for key, value in config.to_dict().items() if key in READ}


def _instead(section: str, key: str) -> str:
    return INSTEAD.get(key, TRAINERS_OWN if section == "train" else ONLY_OURS)


def _fix(instead: Mapping[str, str]) -> str:
    """What to do about each key, in one line; keys are named only where they need different things."""
    keys: dict[str, list[str]] = {}
    for key, what in instead.items():
        keys.setdefault(what, []).append(key)
    return "; ".join(what if len(keys) == 1 else f"{', '.join(named)}: {what}" for what, named in keys.items())
