"""The machine that benchmarks run on: a heading with architecture and versions, and peak memory of an action."""

import ctypes
import gc
import platform
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def heading(threads: int = 1) -> str:
    """The heading of a report: architecture, number of threads, versions."""
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{platform.machine()}, {threads} thread(s), {versions}"


def resident_mib(mark: str = "VmRSS") -> float:
    """Resident memory of this process: `VmRSS` is the present one, `VmHWM` the peak since it was last reset."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{mark}:"))
    return int(line.split()[1]) / 1024


def peak_mib(action: Callable[[], object]) -> float:
    """Peak resident memory during an action, above that before it; the caller has warmed it up."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    rest = resident_mib()
    CLEAR.write_text("5")  # resets the high-water mark
    action()
    return max(0.0, resident_mib("VmHWM") - rest)


def cuda_peak_mib(action: Callable[[], object]) -> float:
    """Peak memory allocated on the CUDA device during an action, above that before it."""
    gc.collect()
    rest = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    action()
    return (torch.cuda.max_memory_allocated() - rest) / 2**20
