"""Silence `datasets` and the hub's client around our own calls of them. Knows nothing of what is loaded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

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
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)


@contextmanager
def quiet_streams() -> Iterator[None]:
    """Context manager: `datasets` logs errors alone; afterwards as before."""
    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)
