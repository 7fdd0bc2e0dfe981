"""Whatever happens while somebody else's model is read is that model's error: caught by place, not by type.

Knows errors and how to word them; knows nothing of which file is read. transformers, tokenizers, safetensors and torch
raise any type on a damaged file, among them a Rust panic, which is no `Exception`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apt_model.data.deadline import TimeUpError, deadline
from apt_model.errors import AptModelError, ConfigError, ModelError, OutOfMemoryError, is_of_library, reason_of
from apt_model.models.directory import CONFIG
from apt_model.models.out_of_memory import is_out_of_memory

PATIENCE = 5  # seconds, for what takes milliseconds of a whole model
EXPECTED = "a Hugging Face model directory with safetensors, a GGUF file, a hub id, or a run directory"


@contextmanager
def reading(
    name: str | Path,
    file: str | Callable[[], str],
    *,
    seconds: float | None = None,
    refuse: Callable[[], str | None] = lambda: None,
) -> Iterator[None]:
    """Context manager: whatever is raised becomes one line that names the file at fault.

    Our own errors pass, and what no library raises: interrupts, exits, whatever belongs to the caller.

    Args:
        name: of the model, for the message.
        file: at fault if something is raised, or a function that finds out which one is.
        seconds: more than this is an error, too; None: it may take as long as it takes.
        refuse: called first: raises if it knows better what is wrong, or returns what to do about it, or None.

    Raises:
        ModelError: it cannot be read. ConfigError: a package that it needs is not installed.
        OutOfMemoryError: it needs more memory than there is.
    """
    try:
        if seconds is None:
            yield
        else:
            with deadline(seconds):
                yield
    except AptModelError:
        raise
    except ImportError as error:  # transformers names the package that a quantized model needs
        what = f"model {name} needs a package that is not installed"
        instead = f"install it, or take a model whose {_found(file)} does not ask for it"
        raise ConfigError(what, got=reason_of(error), fix=instead) from error
    except BaseException as error:
        is_late = isinstance(error, TimeUpError) and seconds is not None
        if not (is_late or is_of_library(error)):
            raise
        if is_out_of_memory(error):
            what, room = f"model {name} needs more memory than there is", "free some memory, or take a smaller model"
            raise OutOfMemoryError(what, got=reason_of(error), fix=room) from error
        fix, at = None if is_late else refuse(), _found(file)
        got = f"it is not read within {seconds} seconds" if is_late else reason_of(error)
        raise ModelError(f"model {name} cannot be loaded: {at}", got=got, expected=EXPECTED, fix=fix) from error


@contextmanager
def running(model: Any, what: str, fix: str = f"check {CONFIG}, or take another model") -> Iterator[None]:
    """Context manager: whatever a model raises that runs for the first time becomes one line: `what`, and its place.

    Only where it is to run can it be tried: its kernels may need a GPU. Our own errors pass, and that memory is full.

    Raises:
        ModelError: it cannot run.
    """
    try:
        yield
    except AptModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        place = getattr(getattr(model, "config", None), "name_or_path", None)
        at = f"{CONFIG} of {place}" if place else type(model).__name__
        raise ModelError(f"{what}: {at}", got=reason_of(error), fix=fix) from error


def _found(file: str | Callable[[], str]) -> str:
    return file if isinstance(file, str) else file()
