"""A real run of three steps in a process of its own: how much memory it took at most, beside what was there before.

Run as `python -m tests.doctor.measured_step TEACHER STUDENT BATCH LENGTH DTYPE WINDOW`, directories with a config each;
under torchrun every rank measures itself. Prints JSON: the bytes that models, gradients, optimizer and a batch took.
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM

from apt_model.plugins.distillation_plugin import DistillationPlugin

STEPS = 3


def status(key: str) -> int:
    """A number of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def model_of(path: str, dtype: torch.dtype) -> nn.Module:
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=dtype).eval()


def loader_of(width: int, rows: int, length: int) -> DataLoader[dict[str, torch.Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    data = [{"input_ids": torch.randint(0, width, (length,), generator=drawn)} for _ in range(16 * rows)]
    return DataLoader(data, batch_size=rows)


def measure(teacher_path: str, student_path: str, rows: int, length: int, dtype: str, window: int) -> dict[str, int]:
    half = dtype == "bf16"
    settings = {
        "max_steps": STEPS,
        "gradient_accumulation_steps": window,
        "mixed_precision": "bf16" if half else "no",
        "show_samples": False,
    }
    tiny = AutoConfig.from_pretrained(student_path)
    tiny.num_hidden_layers, tiny.hidden_size, tiny.intermediate_size = 1, 64, 64
    tiny.num_attention_heads, tiny.num_key_value_heads, tiny.head_dim, tiny.vocab_size = 1, 1, 64, 64
    few = AutoModelForCausalLM.from_config(tiny), AutoModelForCausalLM.from_config(tiny)
    run = {"device": "cpu", "sinks": []}
    if os.environ.get("WORLD_SIZE", "1") == "1":  # what libraries allocate once, they have allocated now
        DistillationPlugin(settings).distill_model(*few, loader_of(64, 1, 8), **run)
    before = status("VmRSS")
    teacher = model_of(teacher_path, torch.bfloat16 if half else torch.float32)
    student = model_of(student_path, torch.float32)
    loaded = status("VmRSS") - before
    Path("/proc/self/clear_refs").write_text("5")
    data = loader_of(student.config.vocab_size, rows, length)
    DistillationPlugin(settings).distill_model(student, teacher, data, **run)
    return {"models": loaded, "taken": status("VmHWM") - before}


if __name__ == "__main__":
    teacher_path, student_path, rows, length, dtype, window = sys.argv[1:]
    print(json.dumps(measure(teacher_path, student_path, int(rows), int(length), dtype, int(window))), flush=True)
