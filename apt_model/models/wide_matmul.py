"""Matrix products in float32 over the full width of the CPU.

torch hands them to MKL, which leaves half of an AMD CPU's AVX-512 idle; oneDNN, which torch brings too, uses all of it.
torch asks oneDNN only where it is told that bf16 would be precise enough, and oneDNN takes that leave only on CPUs with
matrix tiles (AMX): on others it computes in float32 all the same. That is proven here before it is relied on, and the
setting stands only while one of these products is made. Knows nothing of losses or of what a model is for.
"""

import math
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from accelerate.utils import is_compiled_module
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from apt_model.models.output_head import forward_of

LEAST_WORK = 2**24  # multiplications of a product; in a smaller one, finding oneDNN's kernel takes what it gains
CPUINFO = Path("/proc/cpuinfo")
PROBE = 256, 384, 192  # rows, sum, columns: large enough for the kernels of large products
LOST_AT_MOST = 2e-6  # of a product, relative: in float32 5e-7 is lost, through TF32 3e-4, through bf16 2e-3
PRECISION: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
UNSAID = "none"  # what PRECISION holds where nobody has set it
_SETTING = RLock()  # of lessons in threads, each finds it as nobody has set it
_IS_ON = ContextVar("full_width", default=False)


@contextmanager
def full_width(*models: nn.Module | None) -> Iterator[None]:
    """Inside, products of float32 on this CPU that gain by it are made over its full width, as exactly as ever.

    Which are: those of the models' linear layers, forward and backward, and what is computed under `product_of`.
    Nothing changes on a CPU that gains nothing or would lose digits, in compiled models, or where somebody has set a
    precision of their own. `ATEN_CPU_CAPABILITY=avx2` in the environment keeps it off.
    """
    with _SETTING:
        is_ours_to_set = PRECISION.fp32_precision == UNSAID
    if not is_ours_to_set or not gains():
        yield
        return
    token = _IS_ON.set(True)
    try:
        with ExitStack() as stack:
            for layer in _linear_layers(models):
                stack.enter_context(forward_of(layer, _AtFullWidth(layer)))
            yield
    finally:
        _IS_ON.reset(token)


@contextmanager
def product_of(left: Tensor, right: Tensor) -> Iterator[None]:
    """Around the product of `left` (..., I) and a `right` of I by anything, either way round, or one as large."""
    if _IS_ON.get() and _is_worth(left, right):
        with _asking_onednn():
            yield
    else:
        yield


@cache
def gains() -> bool:
    """Whether MKL leaves half of this CPU idle, and oneDNN is exact on it."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and _is_amd() and _is_exact()


def _is_amd() -> bool:
    described = CPUINFO.read_text("utf-8", "replace") if CPUINFO.exists() else platform.processor()
    return "AuthenticAMD" in described


def _is_exact() -> bool:
    """Multiply what bf16 and TF32 cannot hold, laid out in every way that a step has, and compare with float64."""
    rows, length, columns = PROBE
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in ((rows, length), (length, columns)))
    expected = left.double() @ right.double()
    with _asking_onednn():
        found = [a @ b for a in (left, left.t().contiguous().t()) for b in (right, right.t().contiguous().t())]
        found.append(torch.addmm(found[0], left, right, beta=0.5, alpha=0.5))
        found.append(torch.mm(left, right, out=left.new_empty(rows, columns + 1)[:, :columns]))
    return all(float((one - expected).norm() / expected.norm()) < LOST_AT_MOST for one in found)


@contextmanager
def _asking_onednn() -> Iterator[None]:
    """The setting is the process's: what another thread multiplies meanwhile is as exact, by whichever library."""
    with _SETTING:
        try:
            PRECISION.fp32_precision = "bf16"
            yield
        finally:
            PRECISION.fp32_precision = UNSAID


def _is_worth(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and math.prod(left.shape[:-1]) * right.numel() >= LEAST_WORK
    )


def _linear_layers(models: tuple[nn.Module | None, ...]) -> Iterator[nn.Module]:
    """Plain linear layers whose forward nobody has replaced, each once."""
    for model in models:
        if model is None or is_compiled_module(model):
            continue
        for module in model.modules():
            if type(module) in (nn.Linear, Conv1D) and "forward" not in vars(module):
                yield module


class _AtFullWidth:
    """What stands in for a linear layer's forward, and does as the layer itself where a copy outlives the run."""

    computes_the_same = True

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def __call__(self, inputs: Tensor) -> Tensor:
        layer = self._layer
        if torch.compiler.is_compiling() or not _IS_ON.get() or torch.is_autocast_enabled("cpu"):
            return self._usual(inputs)
        weight, is_turned = layer.weight, type(layer) is Conv1D
        is_plain = type(weight) is nn.Parameter and type(inputs) in (Tensor, nn.Parameter)
        if not is_plain or not _is_worth(inputs, weight):
            return self._usual(inputs)
        rows = inputs.reshape(-1, inputs.shape[-1])
        found: Tensor = _Linear.apply(rows, weight, layer.bias, is_turned)  # type: ignore[no-untyped-call]
        return found.view(*inputs.shape[:-1], -1)

    def _usual(self, inputs: Tensor) -> Tensor:
        found: Tensor = type(self._layer).forward(self._layer, inputs)
        return found


class _Linear(torch.autograd.Function):
    """`rows @ weightᵀ + bias` of rows (R, I) and a weight (O, I), or (I, O) where it is turned already."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor | None, is_turned: bool) -> Tensor:
        turned = weight if is_turned else weight.t()
        with _asking_onednn():
            return torch.mm(rows, turned) if bias is None else torch.addmm(bias, rows, turned)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        rows, weight, _, ctx.is_turned = inputs
        wants_rows, wants_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(rows if wants_weight else None, weight if wants_rows else None)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        back = gradient = None
        with _asking_onednn():
            if weight is not None:
                back = torch.mm(outer, weight.t() if ctx.is_turned else weight)
            if rows is not None:
                gradient = torch.mm(rows.t(), outer) if ctx.is_turned else torch.mm(outer.t(), rows)
        return back, gradient, outer.sum(dim=0) if ctx.needs_input_grad[2] else None, None
