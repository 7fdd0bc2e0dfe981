"""Silence `datasets` and the hub's client around our own calls of them. Knows nothing of what is loaded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
from huggingface_hub.utils import logging as hub_logging


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Context manager: `datasets` shows no progress bar, and the hub's client no retry; afterwards as before.

    Bars that the user switched on or off with HF_DATASETS_DISABLE_PROGRESS_BARS stay so.
    """
    hides = not datasets.are_progress_bars_disabled() and datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is None
    if hides:
        datasets.disable_progress_bars()
    try:
        with quiet_hub():
            yield
    finally:
        if hides:
            datasets.enable_progress_bars()


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Context manager: the hub's client logs errors alone, since a failed download has an error line of ours.

    The bar of a download stays: it tells why loading takes long.
    """
    with _errors_alone(hub_logging):
        yield


@contextmanager
def quiet_streams() -> Iterator[None]:
    """Context manager: `datasets` logs errors alone; afterwards as before."""
    with _errors_alone(datasets.logging):
        yield


@contextmanager
def _errors_alone(library: Any) -> Iterator[None]:
    """Context manager: the library of this logging module logs errors alone; afterwards as before."""
    before = library.get_verbosity()
    library.set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        library.set_verbosity(before)
