"""`apt-model`: one line per error, with the exit codes of `apt_model.errors`.

The commands are in `apt_model.commands`. What one needs is imported when it runs, so that `--help` and `replay` never
load torch.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from apt_model import __version__
from apt_model.commands import after, cache, doctor, evaluate, lesson, recipes, report, watch
from apt_model.commands.options import Parser
from apt_model.errors import AptModelError, Interrupted, StorageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = None
    try:
        arguments = make_parser().parse_args(argv)
        command: Callable[[argparse.Namespace], None] = arguments.command
        command(arguments)
        sys.stdout.flush()
    except Interrupted as stop:
        fix = " Fix: --resume goes on from there." if hasattr(arguments, "resume") else ""
        return _fail(f"{stop}{fix}", stop.exit_code, arguments)
    except AptModelError as error:
        return _fail(f"error[{error.code}]: {error}", error.exit_code, arguments)
    except KeyboardInterrupt:
        return _fail(
            "interrupted: a lesson that was not finished keeps its record, and the checkpoints written so far",
            130,
            arguments,
        )
    except BrokenPipeError:
        _forget_output()
        return 0
    except OSError as error:
        _forget_output()
        got = ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)
        line = StorageError("a file or the output cannot be written or read", got=got, fix="free some space")
        return _fail(f"error[{line.code}]: {line}", line.exit_code, arguments)
    except Exception as error:  # noqa: BLE001 - whatever gets here is a bug of ours: one line, traceback on --debug
        return _fail(f"error[BUG]: {type(error).__name__}: {error}. Fix: report it with --debug.", 1, arguments)
    return 0


def _forget_output() -> None:
    """What standard output has not taken yet, it never will: python would try again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, code: int, arguments: argparse.Namespace | None) -> int:
    from apt_model.render.sanitise import sanitise

    if arguments is not None and arguments.debug:
        traceback.print_exc()
    print(sanitise(line), file=sys.stderr)
    return code


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="apt-model", description="Knowledge distillation that you can watch.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"apt-model {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lesson.add(commands)
    doctor.add(commands)
    cache.add(commands)
    evaluate.add(commands)
    recipes.add(commands)
    after.add(commands)
    watch.add(commands)
    report.add(commands)
    return parser
