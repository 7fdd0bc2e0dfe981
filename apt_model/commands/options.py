"""Command-line flags: the parsers, a flag for every setting, and the settings from the flags.

Knows nothing of what a command does.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from apt_model.commands.flags import flag_of, in_our_flags
from apt_model.commands.help import (
    DEFAULT_LANG,
    HELP_ALL,
    asks_for_help,
    full_page,
    language_last,
    language_of,
    overview,
    print_page,
    short_page,
)
from apt_model.commands.together import together
from apt_model.config import PRESETS, LessonConfig, settings
from apt_model.errors import ConfigError

PACKING_HELP = (
    "put samples side by side in blocks of at most max_length tokens, with little padding; the samples of a block do "
    "not see each other: positions and attention begin anew with each; only a sample longer than a block is cut, and "
    "its rest begins anew in another block, behind the start token (default: no)"
)


class Parser(argparse.ArgumentParser):
    """The parser of `apt-model`: errors as one line, help in the language of `--lang`, before the command or after."""

    lang = DEFAULT_LANG

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        wrong = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        close = difflib.get_close_matches(wrong[0], self.flags(), n=1) if wrong and "unrecognized" in message else []
        fix = f"did you mean {close[0]}?" if close else f"see {self.prog} --help"
        raise ConfigError(message if len(message) < 500 else message[:500] + "…", fix=fix)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of the base class; the language may stand before the command."""
        typed = list(sys.argv[1:] if args is None else args)
        self.lang, words = language_of(typed) or self.lang, language_last(typed)
        if words[:1] and words[0] in HELP_ALL:
            self.print_help()
            self.exit()
        return super().parse_known_args(words, namespace)

    def flags(self) -> dict[str, bool]:
        """Its flags, and whether each takes a value."""
        return {flag: action.nargs != 0 for action in self._actions for flag in action.option_strings}

    def commands(self) -> dict[str, "Command"]:
        """The parsers of its commands, by name."""
        found = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return {name: command for action in found for name, command in action.choices.items()}

    def groups(self) -> list[tuple[str, list[argparse.Action]]]:
        """Its flags by group, each with its title."""
        return [(group.title or "", group._group_actions) for group in self._action_groups]

    def format_help(self) -> str:
        """The page of `--help`: one screen."""
        return overview(self)

    def print_help(self, file: Any = None) -> None:
        """Print it, with what the output cannot encode replaced."""
        print_page(self.format_help(), file)


class Command(Parser):
    """The parser of one command: takes names of other trainers, and keys of a config file that are its flags."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, of the words in our flags."""
        words = list(sys.argv[1:] if args is None else args)
        self.lang = language_of(words) or self.lang
        if asks_for_help(words):
            print_page(full_page(self) if set(HELP_ALL) & set(words) else short_page(self))
            self.exit()
        takes_words = any(not action.option_strings for action in self._actions)
        found = in_our_flags(words, self.flags(), self.prog, takes_words=takes_words)
        arguments, rest = argparse.ArgumentParser.parse_known_args(self, found.words, namespace)
        for key, value in found.direct.items():
            setattr(arguments, key, value)
        arguments.file_settings = found.settings
        return arguments, rest

    def required_later(self) -> list[str]:
        """Make all flags optional; returns those that were required, for a command that decides when they are."""
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        return [action.option_strings[0] for action in required]

    def format_help(self) -> str:
        """The page of `--help`: one screen."""
        return short_page(self)


class _Pairs(argparse.Action):
    """Takes words such as prompt=question into a dict, also over several flags."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Set the dict."""
        pairs = [word.partition("=")[::2] for word in values]
        wrong = next((word for word, (ours, theirs) in zip(values, pairs, strict=True) if not (ours and theirs)), None)
        if wrong is not None:
            parser.error(f"argument {self.option_strings[0]}: {wrong!r} is no pair such as prompt=question")
        before: dict[str, str] = getattr(namespace, self.dest)
        for ours, theirs in pairs:
            if before.get(ours, theirs) != theirs:
                parser.error(f"argument {self.option_strings[0]}: {ours} is named twice, {before[ours]} and {theirs}")
            before = {**before, ours: theirs}
        setattr(namespace, self.dest, before)


class _Last(argparse.Action):
    """Takes the words of the last flag, and keeps those of the flags before, to be told of."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Set them."""
        before = getattr(namespace, self.dest, None) or []
        vars(namespace)["overruled"] = [
            *getattr(namespace, "overruled", []),
            *(one for one in before if one not in values),
        ]
        setattr(namespace, self.dest, values)


def tell_overruled(arguments: argparse.Namespace, tell: Callable[..., None]) -> None:
    """Tell of the data of a flag that another one came after."""
    if before := getattr(arguments, "overruled", None):
        tell("data_overruled", before=", ".join(before), last=", ".join(arguments.data))


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str, *, is_shared: bool = False
) -> Command:
    """Add a command's parser, with the flags that all commands share; `is_shared` as in `together`."""
    parser: Command = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    parser.add_argument("--help-all", action="store_true", help="show every flag and exit")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.set_defaults(command=together(run, is_shared=is_shared))
    return parser


def add_source(parser: Command) -> Any:
    """Add the flags for the data; returns their group."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        required=True,
        nargs="+",
        action=_Last,
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
    parser: Command, only: Sequence[str] | None = None, *, defaults: Mapping[str, str] | None = None
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
        action = group.add_argument(
            flag_of(key), **{"help": _help_of_flag(field), "default": argparse.SUPPRESS, "dest": key, **takes}
        )
        if defaults is not None and key in defaults:
            action.help = _with_default(action.help or "", defaults[key])


def _values_of_flag(field: FieldInfo) -> dict[str, Any] | None:
    """Arguments of `add_argument` for a setting's values; None for thresholds, which only a file can set."""
    kinds = get_args(field.annotation) or (field.annotation,)
    several = next((get_args(kind)[0] for kind in (field.annotation, *kinds) if _is_open_ended(kind)), None)
    if get_origin(several) is Literal:
        return {"nargs": "+", "choices": get_args(several), "help": field.description}
    choices = next((get_args(kind) for kind in (field.annotation, *kinds) if get_origin(kind) is Literal), None)
    if choices is not None:
        return {"choices": choices}
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
    flags, from_file = given_settings(arguments), arguments.file_settings or {}
    defaults = {key: value for key, value in defaults.items() if key not in PRESETS.get(flags.get("preset", ""), {})}
    config = LessonConfig.from_layers(defaults, from_file, flags)
    return LessonConfig.from_dict({**config.to_dict(), "seed": config.train.seed or 0})
