"""What figures were measured on: the machine's heading, and the memory of this process."""

import ctypes
import gc
import platform
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def heading(threads: int = 1) -> str:
    """What a report begins with: the architecture, the number of threads, the versions."""
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{platform.machine()}, {threads} thread(s), {versions}"


def resident_mib(mark: str = "VmRSS") -> float:
    """Resident memory: `VmRSS` is what is held now, `VmHWM` the most since the mark was last reset."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{mark}:"))
    return int(line.split()[1]) / 1024


def peak_mib(action: Callable[[], object]) -> float:
    """How far an action rises, at its highest, above what is held before it; the caller has warmed it up."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    rest = resident_mib()
    CLEAR.write_text("5")  # the high-water mark begins anew
    action()
    return max(0.0, resident_mib("VmHWM") - rest)


def cuda_peak_mib(action: Callable[[], object]) -> float:
    """The same of what is allocated on the CUDA device."""
    gc.collect()
    rest = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    action()
    return (torch.cuda.max_memory_allocated() - rest) / 2**20
