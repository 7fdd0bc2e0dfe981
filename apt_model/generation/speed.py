"""Measure inference: prompt and decoding tokens a second, peak memory. Knows nothing of answers' quality."""

import time
import weakref
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from apt_model.data.batch import to_batch
from apt_model.models.forward import Forward, limits
from apt_model.models.generate import generate
from apt_model.models.weights import get_model_size

PROMPTS, PROMPT_TOKENS = 4, 128
GIVEN_TOKENS, NEW_TOKENS = 16, 64
REPEATS = 3


@torch.no_grad()
def measure_inference(model: nn.Module, place: torch.device) -> dict[str, float]:
    """Speed and memory of a model in eval mode on `place`, on arbitrary token ids.

    Returns:
        prompt_tokens_per_second: a batch of 4 prompts of 128 tokens (fewer if the model has fewer positions); median
            of 3 runs after a warm-up.
        decode_tokens_per_second: 64 greedy tokens after a prompt of 16, batch size 1; median of 3 runs after a
            warm-up. Left out if the model has no `generate()`.
        peak_megabytes: of 2**20 bytes: the weights, and the peak of the tensors alive beside them: on CUDA as its
            allocator counts, elsewhere the results of operations, without a kernel's own work space.
    """
    vocabulary, positions = limits(model)
    room = PROMPT_TOKENS if positions is None else min(positions, PROMPT_TOKENS)
    ids = torch.arange(PROMPTS * room).remainder(vocabulary or 2).view(PROMPTS, room)
    batch, forward = to_batch(ids).to(place), Forward(model, "student")
    tasks: dict[str, tuple[int, Callable[[], object]]] = {
        "prompt_tokens_per_second": (ids.numel(), lambda: forward(model, batch))
    }
    if hasattr(model, "generate"):
        given = ids[0, : min(GIVEN_TOKENS, room // 2)].tolist()
        new = min(NEW_TOKENS, room - len(given))
        tasks["decode_tokens_per_second"] = new, lambda: generate(model, None, [given], new_tokens=new, ends=False)
    speeds = {name: tokens / _seconds(task, place) for name, (tokens, task) in tasks.items()}
    peak = max(_peak_bytes(task, place) for _, task in tasks.values())
    return speeds | {"peak_megabytes": get_model_size(model) + peak / 2**20}


def _seconds(task: Callable[[], object], place: torch.device) -> float:
    """Median wall time of a task over 3 runs after a warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        _finish(place)
        started = time.perf_counter()
        task()
        _finish(place)
        times.append(time.perf_counter() - started)
    return median(times[1:])


def _finish(place: torch.device) -> None:
    if place.type != "cpu":
        torch.accelerator.synchronize(place)


def _peak_bytes(task: Callable[[], object], place: torch.device) -> int:
    """Peak bytes of the tensors that a task makes."""
    if place.type == "cuda":
        before = torch.cuda.memory_allocated(place)
        torch.cuda.reset_peak_memory_stats(place)
        task()
        return torch.cuda.max_memory_allocated(place) - before
    live = _LiveTensors()
    with live:
        task()
    return live.peak


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all living tensors that operations inside have made, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            if tensor.untyped_storage().data_ptr() not in given | self._known:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage.data_ptr(), storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in an operation's arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)
