"""`apt-model distill` as a process of its own that is stopped, killed, or finds its files spoiled."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from apt_model.models.pretrained import save_model
from apt_model.storage import newest_snapshot, snapshots
from tests.moments import make_school

pytestmark = pytest.mark.slow
WEIGHTS = "student/model.safetensors"


@pytest.fixture
def school(teacher: Any, tokenizer: Any, tmp_path: Path) -> Path:
    return make_school(tmp_path, teacher, tokenizer, lines=160)


def command(out: str, *more: str) -> list[str]:
    fixed = ["--teacher", "teacher", "--student", "layers=1,hidden=16", "--data", "text.txt", "--device", "cpu"]
    fixed += ["--num-epochs", "6", "--batch-size", "8", "--save-steps", "5", "--learning-rate", "0.01", "--plain"]
    return [sys.executable, "-m", "apt_model", "distill", *fixed, "--out", out, *more]


def start(school: Path, *how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*how), cwd=school, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def distill(school: Path, *how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*how), cwd=school, capture_output=True, text=True, check=False, timeout=200)


def stopped(school: Path, out: str, *signals: signal.Signals) -> tuple[int, str]:
    """A run that gets signals once its first checkpoint is there; its exit code and what it said."""
    process = start(school, out)
    while not snapshots(school / out / "checkpoints"):
        assert process.poll() is None
        time.sleep(0.01)
    for number in signals:
        process.send_signal(number)
    line = process.communicate(timeout=100)[1]
    return process.returncode, line


@pytest.fixture
def whole(school: Path) -> bytes:
    assert distill(school, "whole").returncode == 0
    return (school / "whole" / WEIGHTS).read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_process_says_one_line_and_resumed_ends_with_the_bytes_of_one_never_stopped(
    number: signal.Signals, code: int, school: Path, whole: bytes
) -> None:
    ended, line = stopped(school, "run", number)
    assert ended == code
    assert line.count("\n") == 1
    assert line.startswith("stopped by a signal, the run is saved. Last good checkpoint: step ")
    assert line.endswith("Fix: continue it with --resume.\n")
    assert distill(school, "run", "--resume").returncode == 0
    assert (school / "run" / WEIGHTS).read_bytes() == whole


def test_ctrl_c_twice_ends_at_once_with_whole_checkpoints_and_the_run_goes_on_the_same(
    school: Path, whole: bytes
) -> None:
    ended, line = stopped(school, "run", signal.SIGINT, signal.SIGINT)
    assert ended == 130
    assert line.count("\n") == 1
    newest, skipped = newest_snapshot(school / "run" / "checkpoints")
    assert newest is not None
    assert skipped == []
    assert distill(school, "run", "--resume").returncode == 0
    assert (school / "run" / WEIGHTS).read_bytes() == whole


def test_a_checkpoint_cut_short_is_passed_over_by_name(school: Path, whole: bytes) -> None:
    process = start(school, "run")
    while len(snapshots(school / "run" / "checkpoints")) < 2:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    newest = snapshots(school / "run" / "checkpoints")[-1]
    file = newest / "student.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    done = distill(school, "run", "--resume")
    assert done.returncode == 0
    assert f"{newest.name}: student.safetensors has" in done.stdout
    assert (school / "run" / WEIGHTS).read_bytes() == whole


def test_a_directory_that_cannot_be_written_is_told_before_the_teacher_is_loaded(school: Path) -> None:
    (school / "file").touch()
    (school / "teacher" / "model.safetensors").write_bytes(b"no model")
    done = distill(school, "file/run")
    assert done.returncode == 5
    assert done.stderr.startswith("error[STORAGE]: run directory file/run cannot be written; got Not a directory")
    assert done.stderr.count("\n") == 1


def test_a_teacher_of_nan_is_one_line_with_exit_code_four(school: Path, teacher: Any, tokenizer: Any) -> None:
    teacher.lm_head.weight.data[:] = float("nan")
    save_model(teacher, tokenizer, school / "teacher")
    seen = distill(school, "examined")
    assert seen.returncode == 4
    assert seen.stderr == (
        "error[NUMERIC]: the logits of the teacher are NaN or infinite. Fix: check its weights and its dtype.\n"
    )
    done = distill(school, "run", "--no-doctor")
    assert done.returncode == 4
    line = "error[NUMERIC]: step 1 (batch 0 of epoch 1) is not finite: the teacher's logits are NaN or infinite"
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert list((school / "run").glob("nonfinite-step-*.safetensors"))
