"""The command line `apt-model`: its parser, and errors as one line with the exit codes of `apt_model.errors`.

The commands are in `apt_model.commands`. Each imports what it needs when it runs, so that `--help` and `replay` never
load torch.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from apt_model import __version__
from apt_model.commands import after, branch, cache, doctor, evaluate, lesson, recipes, report, watch
from apt_model.commands.console import forget_output
from apt_model.commands.options import Command, Parser
from apt_model.commands.starting import ENDING
from apt_model.errors import AptModelError, Interrupted, storage_error_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = None
    try:
        arguments = make_parser().parse_args(argv)
        command: Callable[[argparse.Namespace], None] = arguments.command
        with ENDING:
            command(arguments)
            sys.stdout.flush()
    except Interrupted as stop:
        fix = " Fix: continue it with --resume." if hasattr(arguments, "resume") else ""
        return _fail(f"{stop}{fix}", stop.exit_code, arguments)
    except AptModelError as error:
        return _fail(f"error[{error.code}]: {error}", error.exit_code, arguments)
    except KeyboardInterrupt:
        exec("")  # else Python ends by the signal if the interrupt came through an exec(), as dataclasses call it
        return _fail(ENDING.line, 128 + ENDING.signal, arguments)
    except BrokenPipeError:
        forget_output()
        return 0
    except OSError as error:
        forget_output()
        line = storage_error_of(error)
        return _fail(f"error[{line.code}]: {line}", line.exit_code, arguments)
    except Exception as error:  # noqa: BLE001 - a bug of ours: one line, with --debug the traceback too
        return _fail(
            f"error[BUG]: {type(error).__name__}: {error}. Fix: run it again with --debug, and report the traceback.",
            1,
            arguments,
        )
    return 0


def _fail(line: str, code: int, arguments: argparse.Namespace | None) -> int:
    from apt_model.render.sanitise import sanitise

    ENDING.over(code)
    if arguments is not None and arguments.debug:
        traceback.print_exc()
    print(sanitise(line), file=sys.stderr)
    return code


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="apt-model",
        description="Knowledge distillation of language models that you can watch.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"apt-model {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Command)
    lesson.add(commands)
    branch.add(commands)
    doctor.add(commands)
    cache.add(commands)
    evaluate.add(commands)
    recipes.add(commands)
    after.add(commands)
    watch.add(commands)
    report.add(commands)
    return parser
