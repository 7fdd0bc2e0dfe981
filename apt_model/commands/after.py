"""`apt-model talk` and `apt-model replay`: ask a student, or let it complete prompts; show a recorded run again."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apt_model.commands.console import importing, print_line, speaker, tell_damage, teller, waiting
from apt_model.commands.options import add_command, add_settings, given_settings
from apt_model.config import LessonConfig
from apt_model.config.sections import DisplayConfig
from apt_model.errors import ConfigError, DataError, brief
from apt_model.events.recorded import WholeEvents
from apt_model.events.runfile import record_of
from apt_model.i18n import Phrases
from apt_model.ranks.group import ranks
from apt_model.ranks.signs import OUTSIDE

DISPLAY_KEYS = ("show_samples", "show_diff", "max_text_length", "lang")


def add(commands: Any) -> None:
    """Add the parsers of both commands."""
    talk = add_command(commands, "talk", _talk, "ask a model, or let it complete texts, to try a student out")
    talk.add_argument("model", metavar="RUN_OR_MODEL", help="run directory, model directory or hub id")
    talk.add_argument(
        "prompt",
        nargs="*",
        help="questions, in the model's chat template, or if it has none texts to complete "
        "(default: read from standard input, one a line; on a terminal, a conversation)",
    )
    talk.add_argument(
        "--plain-text",
        action="store_true",
        help="complete the prompts as plain text, even if the model has a chat template",
    )
    talk.add_argument("--system", metavar="TEXT", help="instructions before the chat, in the model's chat template")
    talk.add_argument(
        "--tools", metavar="FILE", help="JSON file with a list of functions that the model may call, for its template"
    )
    talk.add_argument("--lang", default="zh", help="language of the input prompt (default: zh)")
    talk.add_argument(
        "--max-new-tokens", type=int, default=60, metavar="N", help="maximum new tokens of an answer (default: 60)"
    )

    replay = add_command(
        commands,
        "replay",
        _replay,
        "show a recorded run again in the terminal, by default with its own display settings",
    )
    replay.add_argument("run", metavar="RUN", help="run directory")
    add_settings(replay, only=DISPLAY_KEYS)


def _talk(arguments: argparse.Namespace) -> None:
    if arguments.max_new_tokens < 1:
        raise ConfigError("max_new_tokens is too small", got=arguments.max_new_tokens, expected="1 or more")
    with importing(arguments.lang):
        from apt_model.data.template import has_template
        from apt_model.generation.talk import Conversation, continue_text
        from apt_model.models.generation_settings import tell_unused
        from apt_model.models.pretrained import load_model

    tell = teller(arguments.lang)
    with waiting(arguments.lang, "model", name=arguments.model):
        model, tokenizer, _ = load_model(arguments.model, tell=tell)
    tell_unused(model, tell)
    goes_on = not arguments.prompt and sys.stdin.isatty()  # a conversation; else each prompt stands for itself
    how, chat = {"max_new_tokens": arguments.max_new_tokens}, None
    tools = _tools(arguments.tools) if arguments.tools is not None else []
    if has_template(tokenizer) and not arguments.plain_text:
        tell("talk_in_template")
        chat = Conversation(model, tokenizer, system=arguments.system, tools=tools, **how, tell=tell)
    elif arguments.system is not None or arguments.tools is not None:
        fix = "leave out --system and --tools" + (", or --plain-text" if arguments.plain_text else "")
        raise ConfigError("system and tools stand in a chat template, and none is used", fix=fix)
    ranks().at(OUTSIDE)
    for prompt in arguments.prompt or _ask(speaker(arguments.lang)("talk.question" if chat else "talk.prompt")):
        if chat is None:
            print_line(continue_text(model, tokenizer, prompt, **how))
            continue
        if not goes_on:
            chat.begin()
        print_line(chat.ask(prompt))


def _tools(path: str) -> list[Any]:
    """The functions in a JSON file.

    Raises:
        ConfigError: it cannot be read, or is no list of objects.
    """
    try:
        tools = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"tools {path} cannot be read", got=str(error)[:200], expected="a JSON file") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ConfigError(f"tools {path} are no list of objects", got=brief(tools), expected='[{"name": ...}, ...]')
    return tools


def _ask(question: str) -> Iterator[str]:
    """Lines of standard input up to an empty one; on a terminal, each after the question."""
    while True:
        if sys.stdin.isatty():
            print(question, end="", flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def _replay(arguments: argparse.Namespace) -> None:
    from apt_model.events.records import RunStarted
    from apt_model.render.terminal import TerminalSink

    given = given_settings(arguments)
    recorded = WholeEvents(record_of(arguments.run))
    sink: TerminalSink | None = None
    display = LessonConfig().display
    for event in recorded:
        if sink is None:
            display = _display(event.config if isinstance(event, RunStarted) else {}, given, recorded.path)
            sink = TerminalSink(display, live=False)
        sink.emit(event)
    if recorded.damage is not None:
        tell_damage(recorded.path.parent, recorded.damage, lang=display.lang)


def _display(recorded: Mapping[str, Any], given: Mapping[str, Any], record: Path) -> DisplayConfig:
    """The display settings of a recorded run, where flags do not say otherwise.

    Raises:
        ConfigError: a flag is wrong.
        DataError: a recorded setting cannot be used.
    """
    own = LessonConfig.from_dict(given).display
    try:
        display = LessonConfig.from_dict({**{k: recorded[k] for k in DISPLAY_KEYS if k in recorded}, **given}).display
        Phrases.load(display.lang)
    except ConfigError as error:
        Phrases.load(own.lang)
        fix = "give it as a flag, as --lang en"
        raise DataError(f"a display setting in {record} cannot be used", got=error, fix=fix) from error
    return display
