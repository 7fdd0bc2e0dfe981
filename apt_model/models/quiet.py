"""Silence transformers around our own calls of it. Knows nothing of what is loaded or saved."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import Filter, Handler, LogRecord, getLogger

from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not listed
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging

from apt_model.data.quiet import quiet_hub


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context manager: transformers shows no progress bar, and the hub's client no retry; afterwards as before.

    Warnings about a model's weights stay. So does the bar of a download, which transformers' switch turns off too.
    """
    shows, downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with quiet_hub():
        if not shows:
            yield
            return
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        if downloads:
            enable_progress_bars()
        try:
            yield
        finally:
            with warnings.catch_warnings(action="ignore"):  # where HF_HUB_DISABLE_PROGRESS_BARS keeps them off
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]
            if not downloads:
                disable_progress_bars()


@contextmanager
def told_if_whole() -> Iterator[None]:
    """Context manager: what transformers logs is shown at the end; not if the block raises: then the error says it."""
    held: list[tuple[Handler, LogRecord]] = []
    filters = [(handler, _Holding(handler, held)) for handler in getLogger("transformers").handlers]
    for handler, holding in filters:
        handler.addFilter(holding)
    try:
        yield
    finally:
        for handler, holding in filters:
            handler.removeFilter(holding)
    for handler, record in held:
        handler.handle(record)


class _Holding(Filter):
    def __init__(self, handler: Handler, held: list[tuple[Handler, LogRecord]]) -> None:
        super().__init__()
        self._handler, self._held = handler, held

    def filter(self, record: LogRecord) -> bool:
        self._held.append((self._handler, record))
        return False


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Context manager: no warning of peft about what its user cannot change, or what `lora` does itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", ".*tie_word_embeddings", UserWarning)  # `lora.merged` unties them
        warnings.filterwarnings(
            "ignore", ".*save_embedding_layers", UserWarning
        )  # adapted ones are saved, as they must
        warnings.filterwarnings("ignore", ".*to a meta parameter", UserWarning)  # a model that gets its weights later
        yield


@contextmanager
def quiet_fsdp() -> Iterator[None]:
    """Context manager: no warning that a model's output is a view, as it is where its head hands its input through.

    Nothing here changes an output in place.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*returned a view tensor", UserWarning)
        yield


@contextmanager
def quiet_about_masks() -> Iterator[None]:
    """Context manager: no advice to pass a mask, where packed texts are kept apart by their positions instead."""
    logger = logging.get_logger("transformers.modeling_utils")
    advice = _MaskAdvice()
    logger.addFilter(advice)
    try:
        yield
    finally:
        logger.removeFilter(advice)


class _MaskAdvice(Filter):
    def filter(self, record: LogRecord) -> bool:
        return not record.getMessage().startswith("We strongly recommend passing in an `attention_mask`")
