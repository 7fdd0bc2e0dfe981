"""What the cases share: a toy model that can be spoiled, and how an action ended, in words or as an exit code."""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer

ROWS = [{"input_ids": [5, i, 7, 8], "labels": [5, i, 7, 8]} for i in range(4, 20)]


class Toy(LlamaForCausalLM):
    """Its loss is NaN from a call on."""

    nan_from = 10**9
    calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As it is, with the loss spoiled."""
        output = super().forward(*args, **kwargs)
        self.calls += 1
        if self.calls >= self.nan_from and output.loss is not None:
            output.loss = output.loss * float("nan")
        return output


def toy(hidden: int = 16) -> Toy:
    """The same weights each time."""
    torch.manual_seed(hidden)
    sizes = {"hidden_size": hidden, "intermediate_size": hidden, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Toy(LlamaConfig(vocab_size=64, **sizes))


def losses(one: Trainer) -> list[float]:
    """What was logged."""
    return [entry["loss"] for entry in one.state.log_history if "loss" in entry]


def finite(model: Any) -> bool:
    """Whether every weight is."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def attempt(action: Callable[[], Any]) -> str:
    """How it ended: "goes on, exit 0", or what it raised."""
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the result
        return f"{type(error).__name__}: {' '.join(str(error).split())[:90] or 'no message'}"
    return "no error, exit 0"


def forked(action: Callable[[], object]) -> int:
    """Its exit code, or minus the signal's number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            action()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:  # noqa: BLE001 - told by the exit code
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
