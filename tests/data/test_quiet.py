"""Other libraries' bars and log lines stay out of our calls, and the user's own settings are as before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import utils as hub
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging

from apt_model.data.dataset import load_dataset, tokenize_dataset
from apt_model.data.encode import encode, encode_rows
from apt_model.models.pretrained import load_model, save_model


@pytest.fixture(params=[True, False])
def bars(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the user wants bars, of each library."""

    def switch(on: bool) -> None:
        (datasets.enable_progress_bars if on else datasets.disable_progress_bars)()
        (logging.enable_progress_bar if on else logging.disable_progress_bar)()

    switch(request.param)
    yield request.param
    switch(True)


@pytest.mark.parametrize("downloads", [True, False])
def test_loading_and_saving_show_nothing_and_the_users_switches_stay(
    bars: bool, downloads: bool, teacher: Any, tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()
    hub_logging.set_verbosity_info()
    text = tmp_path / "text.txt"
    text.write_text("人工智能\nthe network\n" * 9, encoding="utf-8")
    try:
        save_model(teacher, tokenizer, tmp_path / "model")
        load_model(tmp_path / "model")
        tokenize_dataset(load_dataset(text), tokenizer)
        with pytest.raises(Exception, match="nowhere"):
            load_dataset(tmp_path / "nowhere.txt")
        assert capfd.readouterr() == ("", "")
        assert datasets.are_progress_bars_disabled() != bars
        assert logging.is_progress_bar_enabled() == bars
        assert hub.are_progress_bars_disabled() != downloads
        assert hub_logging.get_verbosity() == hub_logging.INFO
    finally:
        hub_logging.set_verbosity_warning()
        hub.enable_progress_bars()


def test_a_text_longer_than_the_model_is_no_warning_because_it_is_truncated(
    chatty: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    chatty.model_max_length = 4
    chat = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "the network"}]
    encode(["the network, is large."], chatty, 4)
    encode_rows([{"messages": chat}, {"prompt": "the network", "completion": "is large."}], chatty, 64)
    assert capfd.readouterr().err == ""


def test_a_tokenizer_of_another_kind_gets_no_argument_that_it_does_not_know() -> None:
    def letters(texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(map(ord, text)) for text in texts]}

    assert encode(["ab"], letters, 9) == [[97, 98]]
