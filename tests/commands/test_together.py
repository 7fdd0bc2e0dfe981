"""Commands in two processes of a launcher: done once, shown once, one line and one exit code for all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from apt_model.models.pretrained import save_model
from apt_model.ranks.store import free_port

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化", "ab ab"]
PAIRS = [{"prompt": text[:2], "completion": text[2:] or "x"} for text in LINES * 3]

Started = list["subprocess.Popen[str]"]


def started(directory: Path, *words: str, ranks: int = 2) -> Started:
    """The command as each of so many processes."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    usual = {"OMP_NUM_THREADS": "1", "CI": "1", "HF_DATASETS_CACHE": str(directory / "cache"), "APT_RANK_START": "60"}
    command = [sys.executable, "-m", "apt_model", *words]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **usual, **(place if ranks > 1 else {}), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def ended(processes: Started) -> list[tuple[int, str, str]]:
    """Of each rank: exit code, standard output, standard error."""
    said = [one.communicate(timeout=120) for one in processes]
    return [(one.returncode, *texts) for one, texts in zip(processes, said, strict=True)]


def test_an_error_of_rank_0_is_one_line_and_one_exit_code_of_all(tmp_path: Path) -> None:
    found = ended(started(tmp_path, "replay", "nowhere"))
    assert [(code, out) for code, out, _ in found] == [(5, ""), (5, "")]
    line = "no record at nowhere; got No such file or directory. Fix: give a run directory.\n"
    assert [told for *_, told in found] == [f"error[STORAGE]: {line}", f"error[STORAGE]: rank 0: {line}"]


@pytest.fixture
def school(teacher: Any, student: Any, tokenizer: Any, tmp_path: Path) -> Path:
    """A directory with a teacher, a student, lines and pairs."""
    save_model(teacher, tokenizer, tmp_path / "teacher")
    save_model(student, tokenizer, tmp_path / "student")
    (tmp_path / "lines.txt").write_text("\n".join(LINES * 8), encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)), encoding="utf-8")
    return tmp_path


def test_an_evaluation_shared_by_ranks_is_that_of_one_process_to_the_byte(school: Path) -> None:
    words = (
        "evaluate",
        "student",
        "--teacher",
        "teacher",
        "--data",
        "pairs.jsonl",
        "--batch-size",
        "2",
        "--lang",
        "en",
    )
    words = (*words, "--device", "cpu", "--max-new-tokens", "4", "--max-prompts", "9", "--no-speed", "--out")
    ((_, alone, _),) = ended(started(school, *words, "one.json", ranks=1))
    first, *others = ended(started(school, *words, "some.json", ranks=3))
    assert (first[0], first[1].replace("some.json", "one.json")) == (0, alone)
    assert others == [(0, "", "")] * 2
    assert (school / "some.json").read_bytes() == (school / "one.json").read_bytes()


def test_a_cache_written_by_ranks_together_has_the_bytes_of_one_process(school: Path) -> None:
    words = ("cache-teacher", "--teacher", "teacher", "--data", "lines.txt", "--device", "cpu", "--k", "8", "--out")
    assert ended(started(school, *words, "one", ranks=1))[0][0] == 0
    first, other = ended(started(school, *words, "two"))
    assert (first[0], first[1].count("distill --teacher-cache"), other) == (0, 1, (0, "", ""))
    files = {path.relative_to(school / "one") for path in (school / "one").rglob("*") if path.is_file()}
    assert len(files) > 3
    assert all((school / "one" / file).read_bytes() == (school / "two" / file).read_bytes() for file in files)


def test_the_doctor_speaks_once_and_its_refusal_is_everyones(school: Path) -> None:
    words = ("doctor", "--teacher", "teacher", "--student", "layers=1", "--device", "cpu", "--lang", "en", "--data")
    first, other = ended(started(school, *words, "lines.txt"))
    assert (first[0], first[1].count("Models"), other) == (0, 1, (0, "", ""))
    refused = ended(started(school, *words, "nothing.txt"))
    assert [code for code, *_ in refused] == [3, 3]
    assert [told.count("\n") for *_, told in refused] == [1, 1]


def test_a_control_is_trained_by_all_ranks_and_judged_once(school: Path) -> None:
    words = ("distill", "--teacher", "teacher", "--student", "layers=1", "--device", "cpu", "--lang", "en", "--plain")
    words = (*words, "--data", "lines.txt", "--validation-split", "0.2", "--max-steps", "3", "--no-doctor")
    first, other = ended(started(school, *words, "--control", "--out", "run"))
    assert (first[0], first[1].count("control.json"), other) == (0, 1, (0, "", ""))
    assert json.loads((school / "run/control.json").read_text())["seeds"].keys() == {"0"}


def test_the_built_in_lesson_goes_into_one_directory(tmp_path: Path) -> None:
    first, other = ended(started(tmp_path, "demo", "--max-steps", "5", "--lang", "en"))
    assert (first[0], other) == (0, (0, "", ""))
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_page_is_served_by_rank_0_until_a_signal_ends_all(number: int, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").touch()
    ranks = started(tmp_path, "watch", "run", "--no-open", "--port", str(free_port()), "--lang", "en")
    assert ranks[0].stdout is not None
    assert "http://127.0.0.1" in ranks[0].stdout.readline()
    time.sleep(1)
    for one in ranks:
        one.send_signal(number)
    (code, _, told), other = ended(ranks)
    assert other[0] == code, (told, other)
    assert other[1] == ""


def test_a_reader_that_closes_the_output_is_no_error_of_any_rank(school: Path) -> None:
    ranks = started(school, "recipes")
    assert ranks[0].stdout is not None
    ranks[0].stdout.close()
    assert [code for code, *_ in ended(ranks)] == [0, 0]
