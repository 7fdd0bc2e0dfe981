"""`apt-model cache-teacher --server`: what is typed, what is shown, and what a student learns from it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.cli import main
from apt_model.models.pretrained import save_model
from tests.distill.teachers.served.kit import Teacher, serving

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def served(make_model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Teacher]:
    """A teacher at an address, its description in a directory, and text of 12 lines."""
    monkeypatch.chdir(tmp_path)
    model = make_model(vocabulary=len(tokenizer), seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    save_model(model, tokenizer, "described")
    Path("described/model.safetensors").unlink()
    Path("text.txt").write_text("\n".join("abcdefghijkl"[n:] + " the cat" for n in range(12)), encoding="utf-8")
    with serving(Teacher(model, tokenizer)) as one:
        yield one


def cache(teacher: str, *more: str) -> int:
    fixed = ["--teacher", teacher, "--data", "text.txt", "--out", "cache", "--lang", "en", "--max-length", "20"]
    return main(["cache-teacher", *fixed, *more])


SERVED = ["--server", "vllm", "--tokenizer", "described", "--k", "8"]


def test_a_student_learns_from_a_teacher_that_only_a_server_has(
    served: Teacher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served.key = "secret"
    monkeypatch.setenv("APT_TEACHER_KEY", "secret")
    assert cache(served.address, *SERVED, "--temperature", "1") == 0
    told = capsys.readouterr().out
    assert "The teacher is served: teacher; two answers to one request differ by 0 nats at most" in told
    assert "nats of KL" not in told  # a server does not tell the tail's tokens
    learn = ["--teacher-cache", "cache", "--student", "layers=1,hidden=16", "--data", "text.txt", "--out", "run"]
    assert (
        main(
            [
                "distill",
                *learn,
                "--device",
                "cpu",
                "--num-epochs",
                "1",
                "--batch-size",
                "4",
                "--no-doctor",
                "--lang",
                "en",
            ]
        )
        == 0
    )
    assert Path("run/student/model.safetensors").exists()
    shown = " ".join(capsys.readouterr().out.split())
    size = sum(one.numel() for one in served.model.parameters())
    assert f"2 × 32 {size:,}" in shown  # counted by its config: nobody has its weights here
    served.lasting = frozenset({"flat"})
    assert cache(served.address, *SERVED, "--temperature", "1") == 3
    assert re.search(r"error\[DATA\]: cache was begun with another model of this name; got", capsys.readouterr().err)


def test_without_a_config_the_teachers_size_is_not_known(served: Teacher, capsys: pytest.CaptureFixture[str]) -> None:
    Path("described/config.json").unlink()
    assert cache(served.address, *SERVED, "--temperature", "1") == 0
    make = ["--teacher-cache", "cache", "--student", "layers=1,hidden=16", "--data", "text.txt", "--out", "run"]
    assert main(["distill", *make, "--device", "cpu", "--lang", "en"]) == 3
    assert "cache has no config of its teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ([*SERVED], 2, "got temperature 4. Fix: give --temperature 1"),
        ([], 2, "--teacher is a URL; got http://"),
        (["--server", "vllm", "--temperature", "1"], 2, "--server needs --tokenizer"),
        ([*SERVED, "--temperature", "1", "--teacher-dtype", "bf16"], 2, "the server decides"),
        ([*SERVED, "--temperature", "1", "--in-flight", "0"], 2, "in_flight=0"),
        ([*SERVED, "--temperature", "1", "--served-model", "b"], 3, "got teacher, expected 'b'"),
        ([*SERVED, "--temperature", "1", "--tokenizer", "none"], 3, "none"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    flags: list[str], code: int, says: str, served: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cache(served.address, *flags) == code
    error = capsys.readouterr().err.strip()
    assert says in error.splitlines()[-1]
    assert not served.asked


def test_flags_of_a_server_are_refused_for_a_directory(served: Teacher, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache("described", *SERVED) == 2
    assert "--server needs a URL as --teacher; got described" in capsys.readouterr().err
    assert cache("described", "--tokenizer", "described") == 2
    assert "--tokenizer is for a teacher behind a server" in capsys.readouterr().err
