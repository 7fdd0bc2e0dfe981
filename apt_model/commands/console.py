"""What commands print, in the language and letters of the output. Knows nothing of what a command does."""

import shlex
import shutil
import sys
from pathlib import Path

from apt_model.i18n import Phrases


def program() -> str:
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


def speaker(lang: str) -> Phrases:
    """The sentences of a language, or English where standard output has no letters for it."""
    from apt_model.render.terminal import spoken_language

    return spoken_language(lang, sys.stdout.encoding)


def print_line(line: str) -> None:
    """Print one line, whatever is in it and whatever standard output can say."""
    from apt_model.render.sanitise import fit_encoding, sanitise

    print(fit_encoding(sanitise(line), sys.stdout.encoding))


def hush_libraries() -> None:
    """No loading bars and no retry messages between the lines of a lesson: what fails is told in our one line."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
