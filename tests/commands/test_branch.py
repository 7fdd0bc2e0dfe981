"""`apt-model branch`: a run goes on from its checkpoint with other settings, as a run of its own."""

import errno
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from apt_model.cli import main, make_parser
from apt_model.commands.branch import branch_settings
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.records import ChangedSetting
from apt_model.events.runfile import read_events
from tests.chats import byte_level, small_llama
from tests.faulty_disk import CAN_FUSE, faulty_disk
from tests.moments import APT, make_school

HOW = ("--device", "cpu", "--sample-frequency", "4", "--no-doctor", "--validation-split", "0", "--lang", "en")
HOW += ("--save-steps", "2", "--save-total-limit", "9", "--learning-rate", "0.01", "--batch-size", "4")
WEIGHTS = "student/model.safetensors"


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, a text, and a run of eight steps in it."""
    folder = make_school(tmp_path_factory.mktemp("school"), small_llama(1, hidden=32, layers=2), byte_level(), lines=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = ["--teacher", "teacher", "--student", "layers=1,hidden=16", "--data", "text.txt", "--out", "run"]
        assert main(["distill", *given, "--num-epochs", "2", *HOW]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(school: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(school)


def weights(run: str | Path) -> bytes:
    return (Path(run) / WEIGHTS).read_bytes()


def test_an_unchanged_branch_ends_with_the_bytes_of_its_parent_from_any_directory(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["branch", str(school / "run"), "--at", "4", "--out", "same"]) == 0
    assert weights("same") == weights(school / "run")
    assert f"watch {school / 'run'} same" in capsys.readouterr().out
    assert main(["branch", "same", "--at", "6", "--out", "again"]) == 0  # from what the branch itself has kept
    assert weights("again") == weights(school / "run")


def test_a_changed_branch_differs_says_so_and_is_named_after_its_parent_and_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for turn in ("run-at-4", "run-at-4-2"):
        assert main(["branch", "run", "--at", "4", "--temperature", "1"]) == 0
        assert "branched from run at step 4: temperature 4.0 → 1.0" in capsys.readouterr().out
        assert weights(turn) != weights("run")
    assert weights("run-at-4") == weights("run-at-4-2")
    branch = next(read_events("run-at-4")).branch  # type: ignore[attr-defined]
    assert (branch.run, branch.step) == ("run", 4)
    assert branch.changed == (ChangedSetting(setting="temperature", before=4.0, after=1.0),)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "--at", "5"], 2, "no checkpoint at step 5; kept: 2, 4, 6, 8. Fix: branch at step 4, the nearest."),
        (["run"], 2, "nothing is left to train after step 8; got num_epochs 2. Fix: branch from an earlier step"),
        (["run", "--at", "4", "--seed", "5"], 2, "seed: 0 then, 5 now (random numbers go on"),
        (["run", "--at", "4", "--max-length", "9"], 2, "max_length: 512 then, 9 now (the rows would be cut"),
        (["run", "--at", "4", "--resume"], 2, "give --out"),
        (["run", "--at", "4", "--out", "run"], 5, "already holds a run"),
        (["nowhere"], 5, "nowhere holds no run to branch from"),
        (["teacher"], 5, "teacher holds no run to branch from"),
    ],
)
def test_what_cannot_be_branched_is_refused_in_a_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(Path().iterdir())
    assert main(["branch", *words]) == code
    assert set(Path().iterdir()) == before, "nothing is left of a branch that was refused"
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error


def test_a_run_of_python_code_says_that_its_record_does_not_name_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("run", tmp_path / "run")
    (tmp_path / "run" / "command.json").unlink()
    assert main(["branch", str(tmp_path / "run"), "--at", "4"]) == 2
    said = capsys.readouterr().err
    assert "does not tell which models and data it was begun with" in said
    assert "branch_from=RUN, branch_at=STEP" in said


def test_data_that_is_gone_is_named_and_data_that_has_changed_is_refused(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("run", tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "command.json").read_text())
    assert kept["flags"]["data"] == ["text.txt"]
    text = Path("text.txt").read_text("utf-8")
    kept["flags"] |= {"data": ["gone.txt"]}
    (tmp_path / "run" / "command.json").write_text(json.dumps(kept))
    assert main(["branch", str(tmp_path / "run"), "--at", "4"]) == 3
    assert "gone.txt" in capsys.readouterr().err
    (tmp_path / "other.txt").write_text("new " + text, encoding="utf-8")
    kept["flags"] |= {"data": [str(tmp_path / "other.txt")]}
    (tmp_path / "run" / "command.json").write_text(json.dumps(kept))
    assert main(["branch", str(tmp_path / "run"), "--at", "4"]) == 2
    assert "(models, data and optimizer stay)" in capsys.readouterr().err
    (tmp_path / "run" / "command.json").write_text("{}")
    assert main(["branch", str(tmp_path / "run"), "--at", "4"]) == 5


def test_typed_epochs_count_more_than_the_steps_of_the_parent_and_a_lone_weight_fixes_the_other() -> None:
    before = LessonConfig.from_dict({"max_steps": 4, "dashboard": True, "alpha": 0.5}).to_dict()
    config = branch_settings(before, {"num_epochs": 5, "alpha": 1.0})
    assert (config.train.max_steps, config.train.num_epochs) == (None, 5)
    assert (config.distill.alpha, config.distill.beta, config.display.dashboard) == (1.0, 0.0, False)
    assert branch_settings(before, {"max_steps": 9}).train.max_steps == 9
    with pytest.raises(ConfigError, match="temperature"):
        branch_settings(before, {"temperature": -1.0})


@pytest.mark.slow
def test_a_branch_killed_at_any_moment_resumes_to_the_bytes_it_would_have_had(tmp_path: Path) -> None:
    command = ["branch", "run", "--at", "2", "--temperature", "1"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    kills = 0
    for turn in range(4):
        out = tmp_path / f"killed-{turn}"
        process = subprocess.Popen([*APT, *command, "--out", str(out)], stdout=-3, stderr=-3)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if out.joinpath("events.jsonl").exists() and len(list(out.glob("checkpoints/step-*"))) > turn:
                process.send_signal(signal.SIGKILL)
                break
        kills += process.wait() == -signal.SIGKILL
        assert main([*command, "--out", str(out), "--resume"]) == 0
        assert weights(out) == weights(tmp_path / "whole")
        assert next(read_events(out)).branch.step == 2  # type: ignore[attr-defined]
    assert kills


@pytest.mark.slow
@pytest.mark.skipif(not CAN_FUSE, reason="a disk of our own needs FUSE and root")
def test_a_disk_that_fails_under_a_branch_or_its_parent_is_exit_code_5(tmp_path: Path) -> None:
    with faulty_disk(tmp_path) as disk:
        disk.fault(room=2_000, errno=errno.ENOSPC)
        full = subprocess.run([*APT, "branch", "run", "--at", "4", "--out", str(disk.path / "b")], capture_output=True)
        assert full.returncode == 5, full.stderr
        disk.fault()
        shutil.copytree("run", disk.path / "run")
        disk.fault(errno=errno.EIO, calls=["read", "open"])
        lost = subprocess.run([*APT, "branch", str(disk.path / "run"), "--at", "4", "--out", str(tmp_path / "of_lost")])
        assert lost.returncode == 5


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_demo_can_be_branched_and_unchanged_it_ends_with_the_same_bytes(lang: str, tmp_path: Path) -> None:
    few = ("--sample-frequency", "1000", "--max-steps", "6", "--save-steps", "3", "--exam-prompts", "--device", "cpu")
    assert main(["demo", "--lang", lang, "--out", str(tmp_path / "demo"), *few]) == 0
    assert main(["branch", str(tmp_path / "demo"), "--at", "3"]) == 0
    assert weights(tmp_path / "demo-at-3") == weights(tmp_path / "demo")
    assert main(["branch", str(tmp_path / "demo"), "--at", "3", "--temperature", "8", "--lang", "en"]) == 0
    assert weights(tmp_path / "demo-at-3-2") != weights(tmp_path / "demo")


def test_the_page_on_branching_has_the_same_commands_in_both_languages_and_they_are_taken() -> None:
    docs = Path(__file__).parents[2] / "docs"
    english, chinese = ((docs / f"branching{ending}").read_text("utf-8") for ending in (".md", ".zh.md"))
    blocks = [re.findall(r"^```\w+\n.*?^```", page, flags=re.MULTILINE | re.DOTALL) for page in (english, chinese)]
    assert blocks[0] == blocks[1]
    lines = re.findall(r"^apt-model (.+)$", english, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        make_parser().parse_args(line.split())
