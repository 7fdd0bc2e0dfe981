"""Printing for the commands: in the chosen language, in the output's encoding. Knows nothing of any command."""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from apt_model.data.notices import Tell
from apt_model.errors import ConfigError, StorageError
from apt_model.events.recorded import Damage, name_of
from apt_model.i18n import Phrases
from apt_model.ranks.place import likely_place

LOADS_TORCH = ("demo", "distill", "branch", "doctor", "cache-teacher", "evaluate", "talk")


def program() -> str:
    """The command that runs this program again: its name if the shell finds it, else its path or `python -m`."""
    called = Path(sys.argv[0])
    if called.name != "apt-model":
        return f"{shlex.quote(sys.executable)} -m apt_model"
    found = shutil.which(called.name)
    return (
        called.name
        if found is not None and called.exists() and Path(found).samefile(called)
        else shlex.quote(str(called))
    )


def speaker(lang: str) -> Phrases:
    """The phrases of a language; English if standard output cannot encode them."""
    from apt_model.render.language import spoken_language

    return spoken_language(lang, sys.stdout.encoding)


def print_line(line: str) -> None:
    """Print one line, sanitised, with what standard output cannot encode replaced."""
    from apt_model.render.sanitise import fit_encoding, sanitise

    print(fit_encoding(sanitise(line), sys.stdout.encoding))


def forget_output() -> None:
    """Send standard output to the null device: else Python would flush it again on exit, and report the error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def teller(lang: str) -> Tell:
    """Prints notices on standard error, each once."""
    from apt_model.render.language import spoken_language
    from apt_model.render.sanitise import fit_encoding, sanitise

    say, told = spoken_language(lang, sys.stderr.encoding), set[str]()

    def tell(key: str, /, **values: str | int | float) -> None:
        line = fit_encoding(sanitise(say(f"notice.{key}", **values)), sys.stderr.encoding)
        if line not in told:
            told.add(line)
            print(line, file=sys.stderr)

    return tell


def tell_damage(run: Path, damage: Damage, *, lang: str) -> None:
    """Print on standard error that the record of a run is damaged, and where."""
    from apt_model.render.language import spoken_language
    from apt_model.render.sanitise import fit_encoding, sanitise

    say = spoken_language(lang, sys.stderr.encoding)
    values = {"count": damage.count, "line": damage.line, "why": damage.why}
    line = say("record.damaged", name=name_of(run.resolve()), **values)
    print(fit_encoding(sanitise(line), sys.stderr.encoding), file=sys.stderr)


def collector(told: list[str], lang: str) -> Tell:
    """A `Tell` that adds a notice's sentence to `told`, each once."""
    say = speaker(lang)

    def tell(key: str, /, **values: str | int | float) -> None:
        if (said := say(f"notice.{key}", **values)) not in told:
            told.append(said)

    return tell


@contextmanager
def waiting(lang: str, what: str, **values: object) -> Iterator[None]:
    """Context manager: what is being waited for, the sentence `loading.<what>`, on the terminal until the end.

    Nothing where neither standard error nor standard output is a terminal; of several ranks rank 0 alone shows it.
    """
    from apt_model.render.language import spoken_language
    from apt_model.render.sanitise import fit_encoding, sanitise
    from apt_model.render.wrap import wrap

    stream = next((one for one in (sys.stderr, sys.stdout) if one is not None and one.isatty()), None)
    if stream is None or os.environ.get("CI") or likely_place().rank:
        yield
        return
    sentence = spoken_language(lang, stream.encoding)(f"loading.{what}", **values)
    sentence = fit_encoding(sanitise(sentence), stream.encoding)
    start, end = wrap(sentence, shutil.get_terminal_size().columns - 1)[0]  # more than a line could not be erased
    stays = os.environ.get("TERM") in ("dumb", "unknown")
    stream.write(sentence[start:end] + ("\n" if stays else "\r"))  # whatever a library prints goes over it
    stream.flush()
    try:
        yield
    finally:
        if not stays:
            stream.write("\r\x1b[2K")
            stream.flush()


def importing(lang: str) -> AbstractContextManager[None]:
    """Context manager around the imports of PyTorch and the like: they are told of on a terminal.

    Raises:
        StorageError: the current directory has been removed: oneMKL would end the process.
    """
    try:
        Path.cwd()
    except OSError as error:
        fix = "change to a directory that is there"
        raise StorageError("the current directory cannot be read", got=error.strerror, fix=fix) from error
    return waiting(lang, "libraries")


def first_word(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """Context manager: `waiting` for the libraries, if these arguments begin a command that loads them.

    For the moment before the arguments are parsed: that alone may take half a second on a busy machine.
    """
    if not arguments or arguments[0] not in LOADS_TORCH or {"-h", "--help", "--help-all", "--plan"} & set(arguments):
        return nullcontext()
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flags.add_argument("--lang")
    flags.add_argument("--config")
    try:
        given = flags.parse_known_args(arguments)[0]
        settings = _settings(given.config) if given.config else {}
        lang = Phrases.load(given.lang or settings.get("lang", "zh")).lang
    except (argparse.ArgumentError, ConfigError, TypeError):  # the command itself says what is wrong
        return nullcontext()
    return waiting(lang, "libraries")


def _settings(path: str) -> dict[Any, Any]:
    from apt_model.config.files import read_file

    return read_file(path)
