"""`apt-model`: demo, distill, talk, replay. One line per error, with the exit codes of `apt_model.errors`.

Only this file knows the command line. What a command needs is imported when it runs, so that `--help` and `replay`
never load torch.
"""

import argparse
import difflib
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from apt_model import __version__
from apt_model.config import PRESETS, LessonConfig, settings
from apt_model.errors import AptModelError, ConfigError
from apt_model.events.runfile import EVENTS, STUDENT, check_run_directory, read_events
from apt_model.i18n import Phrases

DISPLAY_KEYS = ("show_samples", "show_diff", "max_text_length", "lang")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = None
    try:
        arguments = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace], None] = arguments.command
        command(arguments)
        sys.stdout.flush()
    except AptModelError as error:
        return _fail(f"error[{error.code}]: {error}", error.exit_code, arguments)
    except KeyboardInterrupt:
        return _fail("interrupted: a lesson that was not finished keeps its record, but no student", 130, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - whatever gets here is a bug of ours: one line, traceback on --debug
        return _fail(f"error[BUG]: {type(error).__name__}: {error}. Fix: report it with --debug.", 1, arguments)
    return 0


def _fail(line: str, code: int, arguments: argparse.Namespace | None) -> int:
    from apt_model.render.sanitise import sanitise

    if arguments is not None and arguments.debug:
        traceback.print_exc()
    print(sanitise(line), file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are config errors, with a "did you mean"."""

    def error(self, message: str) -> NoReturn:
        known = list(self._options())
        wrong = [word for word in message.split() if word.startswith("--") and "unrecognized" in message]
        close = [match for word in wrong for match in difflib.get_close_matches(word.partition("=")[0], known, n=1)]
        fix = f"did you mean {close[0]}?" if close and close[0] not in wrong else f"see {self.prog} --help"
        raise ConfigError(message, fix=fix)

    def _options(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    yield from command._options()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="apt-model", description="Knowledge distillation that you can watch.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"apt-model {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(commands, "demo", _demo, "watch a student learn Chinese sentences, in a minute or two")
    demo.add_argument("--out", metavar="RUN", help="run directory (default: runs/demo-DATE-TIME)")
    _add_settings(demo)

    distill = _command(commands, "distill", _distill, "distill a model of yours on text of yours")
    distill.add_argument("--teacher", required=True, metavar="DIR_OR_ID", help="model directory or hub id")
    distill.add_argument(
        "--student",
        required=True,
        metavar="DIR_OR_ID_OR_NEW",
        help="model directory, hub id, or a new one like the teacher: layers=6,hidden=384",
    )
    _add_data(distill)
    distill.add_argument("--out", required=True, metavar="RUN", help="run directory: record and student go there")
    distill.add_argument("--config", metavar="FILE", help="TOML file of settings; flags win over it")
    distill.add_argument("--plain", action="store_true", help="log numbers instead of showing a lesson")
    _add_settings(distill)

    talk = _command(commands, "talk", _talk, "begin a sentence, and let a student go on")
    talk.add_argument("model", metavar="RUN_OR_MODEL", help="run directory, model directory or hub id")
    talk.add_argument("prompt", nargs="*", help="beginnings; asked for, a line each, where there are none")
    talk.add_argument("--lang", default="zh", help="language of the question (default: zh)")
    talk.add_argument("--max-new-tokens", type=int, default=60, metavar="N", help="length of an answer (default: 60)")

    replay = _command(commands, "replay", _replay, "see a recorded lesson again")
    replay.add_argument("run", metavar="RUN", help="run directory")
    _add_settings(replay, only=DISPLAY_KEYS)
    return parser


def _add_data(parser: _Parser) -> None:
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
    group.add_argument("--packing", action="store_true", help="join samples to blocks of max-length tokens: no padding")
    group.add_argument("--streaming", action="store_true", help="read the data while training goes on")


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> _Parser:
    parser: _Parser = commands.add_parser(name, help=summary, description=summary + ".", allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def _add_settings(parser: _Parser, only: Sequence[str] | None = None) -> None:
    """A flag for every setting there is, in the groups they come in; a flag that is not given stays out."""
    groups: dict[str, Any] = {}
    if only is None:
        parser.add_argument(
            "--preset", choices=list(PRESETS), default=argparse.SUPPRESS, help="display settings by name"
        )
    for section, key, field in settings():
        if get_origin(field.annotation) is tuple or (only is not None and key not in only):
            continue
        group = groups.setdefault(section, parser.add_argument_group(f"{section} settings"))
        flag, kinds = "--" + key.replace("_", "-"), get_args(field.annotation) or (field.annotation,)
        default = "off" if field.default is None else field.default
        common = {"help": f"{field.description} (default: {default})".replace("%", "%%"), "default": argparse.SUPPRESS}
        if get_origin(field.annotation) is Literal:
            group.add_argument(flag, choices=kinds, **common)
        elif bool in kinds:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            kind = next(kind for kind in (int, float, str) if kind in _plain_types(kinds))
            group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **common)


def _plain_types(kinds: Sequence[Any]) -> Iterator[Any]:
    for kind in kinds:
        if kind is not NoneType:
            yield get_args(kind)[0] if get_args(kind) else kind


def _given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    keys = {key for _, key, _ in settings()} | {"preset"}
    return {key: value for key, value in vars(arguments).items() if key in keys}


def _config(arguments: argparse.Namespace, **defaults: Any) -> LessonConfig:
    """Settings from the config file and the flags, over a command's own defaults."""
    flags, path = _given_settings(arguments), getattr(arguments, "config", None)
    defaults = {key: value for key, value in defaults.items() if key not in PRESETS.get(flags.get("preset", ""), {})}
    config = LessonConfig.from_toml(path, **flags) if path else LessonConfig.from_dict({**defaults, **flags})
    return LessonConfig.from_dict({**config.to_dict(), "seed": config.train.seed or 0})


def _demo(arguments: argparse.Namespace) -> None:
    out = check_run_directory(arguments.out or f"runs/demo-{datetime.now():%Y%m%d-%H%M%S}")
    from apt_model.demo.lesson import BATCH_SIZE, SETTINGS, load_teacher, new_student, read_corpus

    config = _config(arguments, **SETTINGS)
    _prepare(config)
    teacher, tokenizer = load_teacher()
    student = new_student(teacher)
    sentences = [sentence for lines in read_corpus().values() for sentence in lines]
    _teach(config, (teacher, student, tokenizer), sentences, BATCH_SIZE, out)


def _distill(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    if arguments.batch_size < 1:
        raise ConfigError("batch_size is too small", got=arguments.batch_size, expected="1 or more")
    out = check_run_directory(arguments.out)
    from apt_model.distill.student import create_compressed_model, parse_student
    from apt_model.training.checkpoint import load_model
    from apt_model.training.data import load_dataset, tokenize_dataset
    from apt_model.training.encode import refuse_other_tokenizer

    sizes = parse_student(arguments.student)
    _prepare(config)
    how = {"split": arguments.split, "text_column": arguments.text_column, "streaming": arguments.streaming}
    rows = load_dataset(arguments.data, **how)
    teacher, tokenizer, _ = load_model(arguments.teacher)
    if sizes is not None:
        student = create_compressed_model(teacher, **sizes)
    else:
        student, student_tokenizer, _ = load_model(arguments.student)
        refuse_other_tokenizer(tokenizer, student_tokenizer)
        tokenizer = tokenizer if tokenizer is not None else student_tokenizer
    rows = tokenize_dataset(rows, tokenizer, max_length=config.train.max_length, packing=arguments.packing)
    _teach(config, (teacher, student, tokenizer), rows, arguments.batch_size, out, plain=arguments.plain)


def _prepare(config: LessonConfig) -> None:
    """Seed before the student is made, and refuse a device that is not there before the teacher is loaded."""
    from accelerate.utils import set_seed

    from apt_model.distill.setup import pick_device

    pick_device(config.train.device)
    set_seed(config.train.seed)
    _hush_libraries()


def _hush_libraries() -> None:
    """No loading bars and no retry messages between the lines of a lesson: what fails is told in our one line."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _teach(
    config: LessonConfig,
    models: tuple[Any, Any, Any],
    rows: Any,
    batch_size: int,
    out: Path,
    *,
    plain: bool = False,
) -> None:
    """Run the lesson, then say where everything lies."""
    from apt_model.plugins.distillation_plugin import DistillationPlugin
    from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
    from apt_model.training.data import make_dataloader

    run = DistillationPlugin(config).distill_model if plain else VisualDistillationPlugin(config).visual_distill_model
    teacher, student, tokenizer = models
    run(
        student_model=student,
        teacher_model=teacher,
        train_dataloader=make_dataloader(rows, batch_size=batch_size, seed=config.train.seed or 0),
        tokenizer=tokenizer,
        num_epochs=config.train.num_epochs,
        device=config.train.device,
        run_dir=out,
    )
    say, folder = _speaker(config.display.lang), shlex.quote(str(out))
    print()
    _print(say("after.student", path=out / STUDENT))
    _print(say("after.record", path=out / EVENTS))
    _print(say("after.talk", command=f"{_program()} talk {folder}"))
    _print(say("after.replay", command=f"{_program()} replay {folder}"))


def _program() -> str:
    """What a user types to run this program again: its name where the shell finds it, else the way it was called."""
    called = Path(sys.argv[0])
    if called.name != "apt-model":
        return f"{shlex.quote(sys.executable)} -m apt_model"
    found = shutil.which(called.name)
    return (
        called.name
        if found is not None and called.exists() and Path(found).samefile(called)
        else shlex.quote(str(called))
    )


def _talk(arguments: argparse.Namespace) -> None:
    from apt_model.generation.talk import continue_text
    from apt_model.training.checkpoint import load_model

    if arguments.max_new_tokens < 1:
        raise ConfigError("max_new_tokens is too small", got=arguments.max_new_tokens, expected="1 or more")
    _hush_libraries()
    model, tokenizer, _ = load_model(arguments.model)
    prompts = arguments.prompt or _ask(_speaker(arguments.lang)("talk.prompt"))
    for prompt in prompts:
        _print(continue_text(model, tokenizer, prompt, max_new_tokens=arguments.max_new_tokens))


def _ask(question: str) -> Iterator[str]:
    """Lines from standard input, asked for where somebody is there to answer, up to an empty one."""
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

    given = _given_settings(arguments)
    sink: TerminalSink | None = None
    for event in read_events(arguments.run):
        if sink is None:
            recorded = dict(event.config) if isinstance(event, RunStarted) else {}
            sink = TerminalSink(LessonConfig.from_dict({**recorded, **given}).display, live=False)
        sink.emit(event)


def _speaker(lang: str) -> Phrases:
    from apt_model.render.terminal import spoken_language

    return spoken_language(lang, sys.stdout.encoding)


def _print(line: str) -> None:
    from apt_model.render.sanitise import fit_encoding, sanitise

    print(fit_encoding(sanitise(line), sys.stdout.encoding))
