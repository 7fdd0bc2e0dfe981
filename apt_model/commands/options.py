"""Flags: a parser that answers mistakes in one line, a flag for every setting, the settings that flags give.

Knows nothing of what a command does.
"""

import argparse
import difflib
from collections.abc import Callable, Iterator, Sequence
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from apt_model.config import PRESETS, LessonConfig, settings
from apt_model.errors import ConfigError

FLAGS = {"dashboard": "--watch"}  # settings whose flag has a name of its own: that of the command it starts


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are config errors, with a "did you mean"."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and leaving."""
        known = list(self._options())
        wrong = [word for word in message.split() if word.startswith("--") and "unrecognized" in message]
        close = [match for word in wrong for match in difflib.get_close_matches(word.partition("=")[0], known, n=1)]
        fix = f"did you mean {close[0]}?" if close and close[0] not in wrong else f"see {self.prog} --help"
        raise ConfigError(message if len(message) < 500 else message[:500] + "…", fix=fix)

    def _options(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    yield from command._options()


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Parser:
    """A command's parser, with what every command has."""
    parser: Parser = commands.add_parser(name, help=summary, description=summary + ".", allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def add_source(parser: Parser) -> Any:
    """Flags that say where the data is; returns their group."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="FILE",
        help="txt (a sample a line), jsonl, csv, parquet, folders of them, or a dataset's directory or hub id",
    )
    group.add_argument("--split", default="train", metavar="NAME", help="of a dataset with several (default: train)")
    group.add_argument("--text-column", metavar="NAME", help="the column with the text (default: text)")
    group.add_argument("--batch-size", type=int, default=16, metavar="N", help="samples per batch (default: 16)")
    return group


def add_settings(parser: Parser, only: Sequence[str] | None = None) -> None:
    """A flag for every setting there is, in the groups they come in; a flag that is not given stays out."""
    groups: dict[str, Any] = {}
    if only is None:
        parser.add_argument(
            "--preset", choices=list(PRESETS), default=argparse.SUPPRESS, help="display settings by name"
        )
    for section, key, field in settings():
        flag, kinds = FLAGS.get(key, "--" + key.replace("_", "-")), get_args(field.annotation) or (field.annotation,)
        several = next((get_args(kind)[0] for kind in (field.annotation, *kinds) if _is_open_ended(kind)), None)
        is_pair = get_origin(field.annotation) is tuple and several is None  # thresholds: for a file of settings
        if is_pair or (only is not None and key not in only):
            continue
        group = groups.setdefault(section, parser.add_argument_group(f"{section} settings"))
        default = "off" if field.default is None else field.default
        known = "" if "default" in (field.description or "") else f" (default: {default})"
        common = {"help": f"{field.description}{known}".replace("%", "%%"), "default": argparse.SUPPRESS, "dest": key}
        if get_origin(field.annotation) is Literal:
            group.add_argument(flag, choices=kinds, **common)
        elif get_origin(several) is Literal:
            group.add_argument(flag, nargs="+", choices=get_args(several), **{**common, "help": field.description})
        elif several is not None:
            group.add_argument(flag, nargs="*", metavar="TEXT", **common)
        elif bool in kinds:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            kind = next(kind for kind in (int, float, str) if kind in _plain_types(kinds))
            group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **common)


def _is_open_ended(kind: Any) -> bool:
    """Whether a setting of this kind takes any number of values."""
    return get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis


def _plain_types(kinds: Sequence[Any]) -> Iterator[Any]:
    for kind in kinds:
        if kind is not NoneType:
            yield get_args(kind)[0] if get_args(kind) else kind


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    keys = {key for _, key, _ in settings()} | {"preset"}
    return {key: value for key, value in vars(arguments).items() if key in keys}


def read_settings(arguments: argparse.Namespace, **defaults: Any) -> LessonConfig:
    """Settings from the config file and the flags, over a command's own defaults."""
    flags, path = given_settings(arguments), getattr(arguments, "config", None)
    defaults = {key: value for key, value in defaults.items() if key not in PRESETS.get(flags.get("preset", ""), {})}
    config = LessonConfig.from_toml(path, defaults, **flags) if path else LessonConfig.from_dict({**defaults, **flags})
    return LessonConfig.from_dict({**config.to_dict(), "seed": config.train.seed or 0})
