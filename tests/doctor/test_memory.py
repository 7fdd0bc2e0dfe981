"""Memory: what running out of it looks like, and what a step is said to need."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from apt_model.config import LessonConfig
from apt_model.data.batch import to_batch
from apt_model.distill.out_of_memory import explained_out_of_memory
from apt_model.doctor.memory import memory_needed
from apt_model.doctor.need import readable
from apt_model.doctor.trial import TrialReading, read_trial
from apt_model.errors import OutOfMemoryError
from apt_model.events.records import StepDone
from apt_model.events.runfile import read_events
from apt_model.models.forward import Forward
from apt_model.models.out_of_memory import is_out_of_memory
from apt_model.plugins.distillation_plugin import DistillationPlugin

MESSAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\nmore lines"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried 9 bytes"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    MemoryError(),
]


class Hungry(nn.Module):
    """A student that runs out of memory in its fifth step, forwards or backwards."""

    def __init__(self, student: nn.Module, error: Exception, *, backwards: bool) -> None:
        super().__init__()
        self.inner, self._error, self._backwards, self._calls = student, error, backwards, 0

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(input_ids=input_ids, use_cache=False).logits
        self._calls += self.training  # not those that try whether it is causal
        if self._calls == 5:
            if not self._backwards:
                raise self._error
            logits.register_hook(self._fail)
        return logits

    def _fail(self, gradient: torch.Tensor) -> None:
        raise self._error


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("error", MESSAGES, ids=lambda error: str(error)[:30])
def test_a_step_that_runs_out_of_memory_ends_with_the_remedy_and_the_last_good_checkpoint(
    error: Exception, backwards: bool, student: Any, teacher: Any, make_batches: Any, tmp_path: Path
) -> None:
    plugin = DistillationPlugin({"save_steps": 2})
    with pytest.raises(OutOfMemoryError, match="step 5 needs more memory than there is; got a batch of 4 × 12") as info:
        plugin.distill_model(
            Hungry(student, error, backwards=backwards),
            teacher,
            make_batches(count=6),
            device="cpu",
            run_dir=tmp_path / "run",
            sinks=[],
        )
    line = str(info.value)
    assert info.value.exit_code == 4
    assert "Fix: set a smaller batch_size with more gradient_accumulation_steps" in line
    assert "Last good checkpoint: step 4 (" in line
    assert "\n" not in line
    assert [event.step for event in read_events(tmp_path / "run") if isinstance(event, StepDone)] == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_another_failure_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explained_out_of_memory(1, []):
        raise error
    assert caught.value is error
    assert not is_out_of_memory(error)


def test_a_real_allocation_that_fails_is_known_for_what_it_is() -> None:
    batches = [to_batch(torch.ones(rows, 5, dtype=torch.long)) for rows in (1, 3, 2)]
    with pytest.raises(OutOfMemoryError, match="a batch of 3 × 5 tokens"), explained_out_of_memory(1, batches):
        torch.empty(2**60)


class Small(nn.Module):
    """A token is looked up (8 numbers), widened (16), bent, and put out (64)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(64, 8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 64))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.layers(input_ids)


def test_what_a_forward_pass_keeps_is_measured_for_a_token() -> None:
    one, other, batch = Small(), Small(), to_batch(torch.arange(20).reshape(2, 10))
    forwards = Forward(one, "student"), Forward(other, "teacher")
    seen = read_trial(one, other, batch, forwards=forwards, config=LessonConfig(), device=torch.device("cpu"))
    assert seen.kept_bytes == 8 + 8 * 4 + 16 * 4  # its id, the input of the first layer, that of the last


def test_what_autocast_copies_once_is_told_from_what_grows_with_the_batch(student: Any) -> None:
    config = LessonConfig.from_dict({"mixed_precision": "bf16"})
    forwards = Forward(student, "student"), Forward(student, "teacher")
    seen = [
        read_trial(
            student,
            student,
            to_batch(torch.arange(rows * 12).reshape(rows, 12) % 50),
            forwards=forwards,
            config=config,
            device=torch.device("cpu"),
        )
        for rows in (2, 4)
    ]
    layers = sum(p.numel() for p in student.model.layers.parameters() if p.ndim > 1)
    head = student.lm_head.weight.numel()  # the trial's forward pass computes the logits
    sines = 2 * 4 * 12 * student.config.head_dim  # of positions, the same for each row
    for one in seen:
        assert one.kept_once == pytest.approx(2 * (layers + head) + sines)
    assert seen[0].kept_bytes == pytest.approx(seen[1].kept_bytes)


@pytest.mark.parametrize(
    ("is_fused", "logits"), [(False, 3 * 4 * 100 * 64 + 7 * 64 * (2 * 4 + 3 * 4)), (True, 7 * 64 * (2 * 4 + 3 * 4))]
)
def test_a_steps_memory_is_the_sum_of_its_parts(is_fused: bool, logits: int) -> None:
    student, teacher = Small(), Small().double()
    student.layers[0].requires_grad_(False)
    table, rest = 64 * 8, 8 * 16 + 16 + 16 * 64 + 64
    need = memory_needed(
        student,
        teacher,
        tokens=100,
        seen=TrialReading(
            teacher_width=64,
            student_width=64,
            not_numbers=(),
            own_kl=0.0,
            kl=1.0,
            teacher_ce=4.0,
            student_ce=4.0,
            kept_bytes=104.0,
            kept_once=50.0,
            is_fused=is_fused,
        ),
        config=LessonConfig.from_dict({"chunk_rows": 7}),
    )
    assert (need.teacher, need.student) == (8 * (table + rest), 4 * (table + rest))
    assert (need.gradients, need.optimizer) == (4 * rest, 8 * rest)
    assert (need.activations, need.casts, need.logits) == (10400, 50, logits)
    assert need.total == 12 * (table + rest) + 12 * rest + 10400 + 50 + logits


def test_sizes_are_said_as_people_say_them() -> None:
    assert [readable(size) for size in (0, 2**20, 1023 * 2**20, 2**30, 10**12)] == [
        "0.0 MB",
        "1.0 MB",
        "1023.0 MB",
        "1.0 GB",
        "931.3 GB",
    ]
