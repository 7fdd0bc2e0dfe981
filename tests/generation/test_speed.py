"""Speed and memory at inference: what they count, and that they count it."""

from itertools import accumulate, chain, repeat
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from apt_model.generation import speed
from apt_model.generation.speed import measure_inference
from apt_model.models.weights import get_model_size

CPU = torch.device("cpu")


class Plain(nn.Module):
    """Holds `copies` tensors of 2**18 floats (1 MB) at once before it answers."""

    def __init__(self, copies: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.copies = copies

    def forward(self, input_ids: Tensor) -> Tensor:
        held = [torch.ones(2**18) for _ in range(self.copies)]
        for _ in range(5):
            torch.ones(2**18)  # let go of at once
        return self.embedding(input_ids) + 0 * sum(tensor[0] for tensor in held)


def a_second_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which each task takes a second, but 100 the first of its four times."""
    readings = accumulate(chain.from_iterable(repeat([1, 100, 1, 1, 1, 1, 1, 1], 100)))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: float(next(readings)))


def test_memory_is_the_weights_and_the_most_that_was_held_at_once() -> None:
    few, many = (measure_inference(Plain(copies), CPU) for copies in (1, 6))
    assert many["peak_megabytes"] - few["peak_megabytes"] == pytest.approx(5, abs=0.2)
    assert few["peak_megabytes"] == pytest.approx(get_model_size(Plain()) + 2, abs=0.2)


def test_a_plain_module_reads_but_does_not_speak() -> None:
    assert measure_inference(Plain(), CPU).keys() == {"prompt_tokens_per_second", "peak_megabytes"}


def test_speed_is_tokens_over_seconds(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    a_second_for_everything(monkeypatch)
    measured = measure_inference(teacher, CPU)
    assert measured["prompt_tokens_per_second"] == 4 * 128
    assert measured["decode_tokens_per_second"] == 64


def test_models_of_few_positions_are_asked_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 5, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 20}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).eval()
    a_second_for_everything(monkeypatch)
    measured = measure_inference(model, CPU)
    assert (measured["prompt_tokens_per_second"], measured["decode_tokens_per_second"]) == (4 * 20, 10)
