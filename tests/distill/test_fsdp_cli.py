"""`distill --fsdp` on two ranks: rank 1 makes models without weights, and the student is that of DDP."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.distill.students.fresh import create_compressed_model, description_of, student_without_weights
from apt_model.models.pretrained import load_model, save_model

STUDENTS = {
    "saved": ["--student", "SAVED"],
    "fresh": ["--student", "layers=1,hidden=16"],
    "cut": ["--student", "layers=1,hidden=16,init=teacher"],
    "lora": ["--student", "SAVED", "--lora", "r=2"],
}


def shapes(model: Any) -> list[Any]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, one.dtype, one.shape) for name, one in named]


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_on_the_meta_device_is_the_saved_one_without_its_weights(
    make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, tied: bool
) -> None:
    model = make_model(tie_word_embeddings=tied)
    save_model(model, tokenizer, tmp_path)
    found, _, _ = load_model(tmp_path, device=torch.device("meta"))
    assert shapes(found) == shapes(model)
    assert {one.device.type for one in found.parameters()} == {"meta"}
    assert found.generation_config.to_dict() == load_model(tmp_path)[0].generation_config.to_dict()


def test_a_described_student_is_the_new_one_without_its_weights(make_model: Callable[..., Any]) -> None:
    teacher = make_model(layers=3)
    student = create_compressed_model(teacher, num_layers=2, hidden_size=16, num_attention_heads=2)
    found = student_without_weights(description_of(student), teacher.to("meta"))
    assert shapes(found) == shapes(student)
    assert {one.device.type for one in found.parameters()} == {"meta"}
    assert found.config.to_dict() == student.config.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDENTS)
def test_each_way_to_name_a_student_leaves_the_bytes_of_ddp(
    make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    vocabulary = len(tokenizer)
    save_model(make_model(seed=1, vocabulary=vocabulary), tokenizer, tmp_path / "teacher")
    save_model(make_model(hidden=16, vocabulary=vocabulary), tokenizer, tmp_path / "student")
    (tmp_path / "data.txt").write_text("\n".join("ab cd ef, gh."[at % 5 :] * 2 for at in range(24)))
    student = [str(tmp_path / "student") if one == "SAVED" else one for one in STUDENTS[kind]]
    found = {fsdp: distilled(tmp_path, student, fsdp) for fsdp in ("none", "student", "teacher", "both")}
    assert len(set(found.values())) == 1


def distilled(folder: Path, student: list[str], fsdp: str) -> bytes:
    """The weights of a student that two ranks have distilled."""
    out = folder / fsdp
    command = ["distill", "--teacher", folder / "teacher", *student, "--data", folder / "data.txt", "--out", out]
    settings = ["--fsdp", fsdp, "--max-steps", "2", "--batch-size", "2", "--device", "cpu", "--plain", "--no-doctor"]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "apt_model", *map(str, [*command, *settings])],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [one.communicate(timeout=300)[1] for one in ranks]
    assert [one.returncode for one in ranks] == [0, 0], said
    assert not any("UserWarning" in text for text in said), said
    (weights,) = (out / "student").glob("*.safetensors")
    return weights.read_bytes()
