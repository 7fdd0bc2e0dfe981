"""Teachers that accelerate's device_map has put on a device or a disk teach what a plain one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from apt_model import DistillationPlugin
from apt_model.errors import ModelError
from apt_model.models.fingerprints import hash_model

PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")


def mapped(folder: Path, *on_disk: str) -> Any:
    where = {part: "disk" if part in on_disk else "cpu" for part in PARTS}
    return AutoModelForCausalLM.from_pretrained(folder / "saved", device_map=where, offload_folder=folder / "disk")


def taught(student: Any, teacher: Any, batches: Any, run: Path) -> list[torch.Tensor]:
    settings = {"max_steps": 2, "seed": 0, "hidden_weight": 0.5, "on_policy": 0.5, "on_policy_tokens": 3}
    DistillationPlugin(settings).distill_model(student, teacher, batches, device="cpu", run_dir=run, sinks=[])
    return list(student.parameters())


@pytest.mark.parametrize("on_disk", [("model.layers.1",), PARTS])
def test_a_teacher_on_a_disk_teaches_what_a_plain_one_does(
    tmp_path: Path, make_model: Callable[..., Any], make_batches: Callable[..., Any], on_disk: tuple[str, ...]
) -> None:
    teacher, batches = make_model(seed=1), make_batches(2)
    teacher.save_pretrained(tmp_path / "saved")
    there = mapped(tmp_path, *on_disk)
    assert hash_model(there) == hash_model(teacher)
    students = make_model(hidden=16, layers=1), make_model(hidden=16, layers=1)
    plain, other = (
        taught(student, one, batches, tmp_path / str(turn))
        for turn, (student, one) in enumerate(zip(students, (teacher, there), strict=True))
    )
    assert all(torch.equal(*pair) for pair in zip(plain, other, strict=True))


def test_a_student_on_a_disk_is_refused(
    tmp_path: Path, make_model: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    make_model().save_pretrained(tmp_path / "saved")
    with pytest.raises(ModelError, match=r"cannot be trained where device_map puts it.*load it without"):
        taught(mapped(tmp_path, "model.layers.1"), make_model(seed=1), make_batches(2), tmp_path / "run")
