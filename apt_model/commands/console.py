"""Printing for the commands: in the chosen language, in the output's encoding. Knows nothing of any command."""

import shlex
import shutil
import sys
from pathlib import Path

from apt_model.i18n import Phrases


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
    from apt_model.render.terminal import spoken_language

    return spoken_language(lang, sys.stdout.encoding)


def print_line(line: str) -> None:
    """Print one line, sanitised, with what standard output cannot encode replaced."""
    from apt_model.render.sanitise import fit_encoding, sanitise

    print(fit_encoding(sanitise(line), sys.stdout.encoding))


def hush_libraries() -> None:
    """Turn off the libraries' progress bars and retry messages; a failure is reported by our own error line."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
