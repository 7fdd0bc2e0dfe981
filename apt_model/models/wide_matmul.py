"""Matrix products in float32 through oneDNN instead of MKL, on CPUs where that is faster and as exact.

On an AMD CPU with AVX-512, torch's MKL computes with half of each vector register; oneDNN, which comes with torch, uses
the whole. torch hands float32 products to oneDNN only under `fp32_precision = "bf16"`, which permits oneDNN to round
its inputs to bf16. oneDNN makes use of that permission only on CPUs with matrix tiles (AMX). `_is_exact` proves on this
machine that it does not, and the permission stands only for the length of one product. Knows nothing of losses, or of
what a model is for. Why at all, measured gains and when to drop it: docs/decisions/wide-matmul.md.
"""

import math
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from accelerate.utils import is_compiled_module
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from apt_model.config.sections import WideMatmul
from apt_model.models.output_head import forward_of

LEAST_WORK = 2**24  # multiplications in a product; in a smaller one, oneDNN's search for a kernel takes what it gains
CPUINFO = Path("/proc/cpuinfo")
PROBE = 256, 384, 192  # rows, inner size, columns: large enough for the kernels that large products get
MOST_ERROR = 2e-6  # of a product, relative to float64: float32 gives 5e-7, TF32 3e-4, bf16 2e-3
PRECISION: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
UNSET = "none"  # what PRECISION.fp32_precision holds until somebody sets it
_SETTING = RLock()  # the setting is the process's: a run that begins in another thread must not take ours for a user's


@dataclass
class _Active:
    """An active `full_width`, and whether a product has gone to oneDNN in it."""

    has_multiplied: bool = False


_ACTIVE: ContextVar[_Active | None] = ContextVar("full_width", default=None)


@contextmanager
def full_width(*models: nn.Module | None, setting: WideMatmul = "auto") -> Iterator[None]:
    """Context manager around a run: large float32 products on the CPU go to oneDNN, where that is faster and exact.

    It covers the models' linear layers, forward and backward, and whatever is computed under `product_of`. Products
    stay with MKL where `setting` is "off", on a CPU that gains nothing or would lose digits, in compiled models, and
    where the user has set a precision for oneDNN. `ATEN_CPU_CAPABILITY=avx2` in the environment has that effect too.

    Args:
        models: those that compute on the CPU; None is skipped.
        setting: `wide_matmul` of the settings.
    """
    with _SETTING:
        is_set_by_user = PRECISION.fp32_precision != UNSET
    if setting == "off" or is_set_by_user or not gains():
        yield
        return
    token = _ACTIVE.set(_Active())
    try:
        with ExitStack() as stack:
            for layer in _linear_layers(models):
                stack.enter_context(forward_of(layer, _WideLinear(layer)))
            yield
    finally:
        _ACTIVE.reset(token)


def uses_onednn() -> bool:
    """Whether a product has gone to oneDNN so far, inside the `full_width` that this is called in."""
    active = _ACTIVE.get()
    return active is not None and active.has_multiplied


@contextmanager
def product_of(left: Tensor, right: Tensor) -> Iterator[None]:
    """Context manager around one matrix product: uses oneDNN if the product is large enough to gain.

    The product is `left` (..., I) @ `right` (I, N), `left @ right.T` with `right` (N, I), or another one of as many
    multiplications, such as a gradient of these.
    """
    if _ACTIVE.get() is not None and _is_worth(left, right):
        with _onednn():
            yield
    else:
        yield


@cache
def gains() -> bool:
    """Whether oneDNN is faster than MKL on this CPU, and as exact."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and is_amd() and _is_exact()


def is_amd() -> bool:
    """Whether this CPU is one of AMD's."""
    described = CPUINFO.read_text("utf-8", "replace") if CPUINFO.exists() else platform.processor()
    return "AuthenticAMD" in described


def _is_exact() -> bool:
    """Whether oneDNN computes in float32: its error against float64 is too small for inputs rounded to bf16 or TF32.

    Tries row-major and column-major operands, addmm, and output into a slice: a layout may have a kernel of its own.
    """
    rows, inner, columns = PROBE
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in ((rows, inner), (inner, columns)))
    expected = left.double() @ right.double()
    with _onednn():
        found = [a @ b for a in (left, left.t().contiguous().t()) for b in (right, right.t().contiguous().t())]
        found.append(torch.addmm(found[0], left, right, beta=0.5, alpha=0.5))  # half of each: the product again
        found.append(torch.mm(left, right, out=left.new_empty(rows, columns + 1)[:, :columns]))
    return all(float((one - expected).norm() / expected.norm()) < MOST_ERROR for one in found)


@contextmanager
def _onednn() -> Iterator[None]:
    """Context manager in which torch hands float32 products to oneDNN.

    The setting is process-wide, so products in other threads go to oneDNN meanwhile; they are as exact there.
    """
    if (active := _ACTIVE.get()) is not None:
        active.has_multiplied = True
    with _SETTING:
        try:
            PRECISION.fp32_precision = "bf16"
            yield
        finally:
            PRECISION.fp32_precision = UNSET


def _is_worth(left: Tensor, right: Tensor) -> bool:
    # rows of left times all elements of right: the multiplications, whichever way round right is stored
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and math.prod(left.shape[:-1]) * right.numel() >= LEAST_WORK
    )


def _linear_layers(models: tuple[nn.Module | None, ...]) -> Iterator[nn.Module]:
    """The linear layers to cover: of exactly these classes, and with a `forward` that nobody has replaced."""
    for model in models:
        if model is None or is_compiled_module(model):
            continue
        for module in model.modules():
            if type(module) in (nn.Linear, Conv1D) and "forward" not in vars(module):
                yield module


class _WideLinear:
    """Replacement for a linear layer's `forward`: multiplies through oneDNN where that gains.

    A deepcopy of the model made during the run keeps this object; outside `full_width` it computes as the layer does.
    """

    computes_the_same = True  # `find_head` may take the layer for a plain one

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def __call__(self, inputs: Tensor) -> Tensor:
        layer = self._layer
        if torch.compiler.is_compiling() or _ACTIVE.get() is None or torch.is_autocast_enabled("cpu"):
            return self._plain(inputs)
        weight, is_transposed = layer.weight, type(layer) is Conv1D
        # tensor subclasses (quantized weights, functorch's) bring kernels of their own
        is_plain = type(weight) is nn.Parameter and type(inputs) in (Tensor, nn.Parameter)
        if not is_plain or not _is_worth(inputs, weight):
            return self._plain(inputs)
        rows = inputs.reshape(-1, inputs.shape[-1])
        output: Tensor = _Linear.apply(rows, weight, layer.bias, is_transposed)  # type: ignore[no-untyped-call]
        return output.view(*inputs.shape[:-1], -1)

    def _plain(self, inputs: Tensor) -> Tensor:
        output: Tensor = type(self._layer).forward(self._layer, inputs)
        return output


class _Linear(torch.autograd.Function):
    """Linear layer, forward and backward, through oneDNN: `rows @ weightᵀ + bias`.

    Shapes: rows (R, I); weight (O, I), or (I, O) where it is stored transposed, as in GPT-2's Conv1D; output (R, O).
    A function of its own, because autograd's backward of `linear` runs outside the context of the forward pass.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor | None, is_transposed: bool) -> Tensor:
        turned = weight if is_transposed else weight.t()  # (I, O)
        with _onednn():
            return torch.mm(rows, turned) if bias is None else torch.addmm(bias, rows, turned)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        rows, weight, _, ctx.is_transposed = inputs
        needs_rows, needs_weight, *_ = ctx.needs_input_grad
        # each gradient is made from the other input: keep only what will be used
        ctx.save_for_backward(rows if needs_weight else None, weight if needs_rows else None)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows = of_weight = None
        with _onednn():
            if weight is not None:  # dL/drows = dL/dout @ weight: (R, O) @ (O, I)
                of_rows = torch.mm(outer, weight.t() if ctx.is_transposed else weight)
            if rows is not None:  # dL/dweight = dL/doutᵀ @ rows: (O, R) @ (R, I), or its transpose
                of_weight = torch.mm(rows.t(), outer) if ctx.is_transposed else torch.mm(outer.t(), rows)
        return of_rows, of_weight, outer.sum(dim=0) if ctx.needs_input_grad[2] else None, None
