"""Command-line flags: a parser with one-line errors, a flag for every setting, and the settings from the flags.

Knows nothing of what a command does.
"""

import argparse
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from apt_model.config import PRESETS, LessonConfig, settings
from apt_model.errors import ConfigError

FLAGS = {"dashboard": "--watch"}  # settings whose flag has another name: here that of the command it starts
PACKING_HELP = "concatenate samples into blocks of max_length tokens, without padding (default: no)"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a `ConfigError` with a "did you mean" on a wrong argument."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
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


class _Pairs(argparse.Action):
    """Takes words such as prompt=question into a dict."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Set the dict."""
        pairs = [word.partition("=")[::2] for word in values]
        wrong = next((word for word, (ours, theirs) in zip(values, pairs, strict=True) if not (ours and theirs)), None)
        if wrong is not None:
            parser.error(f"argument {self.option_strings[0]}: {wrong!r} is no pair such as prompt=question")
        setattr(namespace, self.dest, dict(pairs))


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Parser:
    """Add a command's parser, with the flags that all commands share."""
    parser: Parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def add_source(parser: Parser) -> Any:
    """Add the flags for the data; returns their group."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="FILE",
        help="txt (one sample per line), jsonl, json, csv, tsv, parquet or arrow files, folders of them, "
        "a saved dataset, or a hub id",
    )
    group.add_argument(
        "--split",
        default="train",
        metavar="NAME",
        help="split of a dataset that has several, or a part of one: train[:10%%] (default: train)",
    )
    group.add_argument("--text-column", metavar="NAME", help="column of the text; same as --columns text=NAME")
    group.add_argument(
        "--columns",
        nargs="+",
        action=_Pairs,
        default={},
        metavar="OURS=THEIRS",
        help="columns that have other names in the data: prompt=question completion=answer",
    )
    group.add_argument("--batch-size", type=int, default=16, metavar="N", help="samples per batch (default: 16)")
    return group


def add_settings(
    parser: Parser, only: Sequence[str] | None = None, *, defaults: Mapping[str, str] | None = None
) -> None:
    """Add a flag for every setting (or for those in `only`), grouped by section; a flag not given sets nothing.

    `defaults` names those of a command's own, for the help.
    """
    groups: dict[str, Any] = {}
    if only is None:
        parser.add_argument(
            "--preset",
            choices=list(PRESETS),
            default=argparse.SUPPRESS,
            help="a named set of display settings; single flags override it",
        )
    for section, key, field in settings():
        takes = _values_of_flag(field)
        if takes is None or (only is not None and key not in only):
            continue
        group = groups.setdefault(section, parser.add_argument_group(f"{section} settings"))
        flag = FLAGS.get(key, "--" + key.replace("_", "-"))
        action = group.add_argument(
            flag, **{"help": _help_of_flag(field), "default": argparse.SUPPRESS, "dest": key, **takes}
        )
        if defaults is not None and key in defaults:
            action.help = _with_default(action.help or "", defaults[key])


def _values_of_flag(field: FieldInfo) -> dict[str, Any] | None:
    """Arguments of `add_argument` for a setting's values; None for thresholds, which only a file can set."""
    kinds = get_args(field.annotation) or (field.annotation,)
    several = next((get_args(kind)[0] for kind in (field.annotation, *kinds) if _is_open_ended(kind)), None)
    if get_origin(field.annotation) is Literal:
        return {"choices": kinds}
    if get_origin(several) is Literal:
        return {"nargs": "+", "choices": get_args(several), "help": field.description}
    if several is not None:
        return {"nargs": "*", "metavar": "TEXT"}
    if get_origin(field.annotation) is tuple:
        return None
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    kind = next(kind for kind in (int, float, str) if kind in _plain_types(kinds))
    return {"type": kind, "metavar": kind.__name__.upper()}


def _help_of_flag(field: FieldInfo) -> str:
    default = "off" if field.default is None else field.default
    known = "" if "default" in (field.description or "") else f" (default: {default})"
    return f"{field.description}{known}".replace("%", "%%")


def _with_default(said: str, default: str) -> str:
    """The help of a flag with another default than the setting's."""
    return re.sub(r" \(default: [^()]*\)$", "", said) + f" (default: {default})"


def _is_open_ended(kind: Any) -> bool:
    """Whether a setting of this type takes any number of values."""
    return get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis


def _plain_types(kinds: Sequence[Any]) -> Iterator[Any]:
    for kind in kinds:
        if kind is not NoneType:
            yield get_args(kind)[0] if get_args(kind) else kind


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings given as flags."""
    keys = {key for _, key, _ in settings()} | {"preset"}
    return {key: value for key, value in vars(arguments).items() if key in keys}


def read_settings(arguments: argparse.Namespace, **defaults: Any) -> LessonConfig:
    """Settings from the flags, which override the config file, which overrides a command's own `defaults`."""
    flags, path = given_settings(arguments), getattr(arguments, "config", None)
    defaults = {key: value for key, value in defaults.items() if key not in PRESETS.get(flags.get("preset", ""), {})}
    config = LessonConfig.from_toml(path, defaults, **flags) if path else LessonConfig.from_dict({**defaults, **flags})
    return LessonConfig.from_dict({**config.to_dict(), "seed": config.train.seed or 0})
