"""Ctrl-C and SIGTERM at drawn moments of real processes, once and twice: one line, 130 or 143, nobody left over."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apt_model.storage import newest_snapshot
from tests.distill.forks import WEIGHTS
from tests.moments import APT, LINE, Ended, interrupted, left_of, listens, make_school
from tests.phases import PHASES

MODELS = ("--teacher", "teacher", "--student", "layers=1,hidden=16", "--data", "text.txt", "--device", "cpu")
LESSON = ("distill", *MODELS, "--num-epochs", "2", "--batch-size", "8", "--save-steps", "3", "--validation-split", "8")
SAVED = "stopped by a signal, the run is saved."


@pytest.fixture
def school(teacher: Any, tokenizer: Any, tmp_path: Path) -> Path:
    return make_school(tmp_path, teacher, tokenizer, lines=80)


def is_right(ended: Ended, number: int) -> bool:
    """Python's own start and end are Python's; a signal between them is one line, or comes when all has been said."""
    if not ended.heard:  # its start: the traceback is not ours; its end: the handlers are gone
        return not ended.left
    if ended.command.startswith("watch") and ended.code == 0:  # it serves until it is stopped
        return ended.said == "" and not ended.left
    if ended.code == 0 and ended.lasted < 0.3:  # it had said all: the code is the command's own
        return ended.said == "" and not ended.left
    return ended.said == LINE and ended.code == 128 + number and not ended.left


@pytest.mark.parametrize("seed", range(4))
def test_a_signal_in_the_first_half_second_is_one_line(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    at, number = dice.uniform(0.05, 0.5), dice.choice([signal.SIGINT, signal.SIGTERM])
    ended = interrupted([*APT, "demo"], tmp_path, moment=lambda _: time.sleep(at), signals=[number])
    assert is_right(ended, number), ended


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("span", [0.6, 3.0])
def test_three_hundred_signals_in_the_first_seconds(
    span: float, school: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", 150)
    commands: list[Callable[[int], Sequence[str]]] = [
        lambda turn: [*LESSON, "--out", f"run-{turn}"],
        lambda turn: ["demo", "--out", f"run-{turn}", "--max-steps", "5"],
        lambda turn: ["doctor", *MODELS],
        lambda turn: ["talk", "teacher", "a"],
        lambda turn: ["watch", "done", "--no-open", "--port", "8690"],
        lambda turn: ["replay", "done"],
        lambda turn: ["report", "done", "-o", f"report-{turn}.html"],
        lambda turn: ["--help"],
        lambda turn: ["--version"],
    ]
    subprocess.run([*APT, *LESSON, "--out", "done"], cwd=school, stdout=subprocess.DEVNULL, check=True)
    dice, wrong, kinds = random.Random(int(span * 10)), [], Counter[str]()
    for turn in range(150):
        at, number, group = dice.uniform(0, span), dice.choice([signal.SIGINT, signal.SIGTERM]), dice.random() < 0.5
        command = [*APT, *dice.choice(commands)(turn)]
        ended = interrupted(command, school, moment=lambda _: time.sleep(at), signals=[number], group=group)  # noqa: B023
        kinds["over" if ended.was_over else "heard" if ended.heard else "python"] += 1
        if not ended.was_over and not is_right(ended, number):
            wrong.append(ended)
        shutil.rmtree(school / f"run-{turn}", ignore_errors=True)
    assert wrong == []
    assert kinds["heard"] > 40
    assert kinds["python"] < kinds["heard"] / 2  # it listens early, also where the machine is busy


def in_phase(phase: str, school: Path, gap: float, *, group: bool, out: str, signals: Sequence[int]) -> Ended:
    """A run that gets signals when a phase has begun, the second so many seconds after the first."""
    mark = school / f"mark-{out}"

    def begun(process: int) -> None:
        end = time.monotonic() + 100
        while not mark.exists() and time.monotonic() < end and Path(f"/proc/{process}").exists():
            time.sleep(0.002)

    command = [sys.executable, "-m", "tests.phases", phase, str(mark), *LESSON, "--exam-prompts", "ab", "--out", out]
    return interrupted(command, school, moment=begun, signals=signals, group=group, apart=gap)


def go_on(school: Path, out: str) -> subprocess.CompletedProcess[str]:
    """Take the run up, or begin it if it had not."""
    more = ["--resume"] if (school / out / "events.jsonl").exists() else []
    command = [*APT, *LESSON, "--exam-prompts", "ab", "--out", out, *more]
    return subprocess.run(command, cwd=school, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("phase", PHASES)
def test_a_second_ctrl_c_in_each_phase_ends_it_with_one_line_and_the_run_goes_on_the_same(
    phase: str, school: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    assert go_on(school, "whole").returncode == 0
    whole, dice = (school / "whole" / WEIGHTS).read_bytes(), random.Random(phase)
    for turn in range(4):
        gap, group, out = dice.uniform(0, 0.12), dice.random() < 0.5, f"run-{turn}"
        ended = in_phase(phase, school, gap, group=group, out=out, signals=[signal.SIGINT] * 2)
        told = ended.said == LINE or (ended.said.startswith(SAVED) and ended.said.count("\n") == 1)
        assert told, ended
        assert (ended.code, ended.left) == (130, [])
        assert newest_snapshot(school / out / "checkpoints")[1] == []  # none is damaged
        assert not (school / out / "student").exists() or (school / out / WEIGHTS).read_bytes() == whole
        again = go_on(school, out)
        assert again.returncode == 0, again.stderr
        assert (school / out / WEIGHTS).read_bytes() == whole


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
def test_signals_while_several_processes_tokenize_leave_none_of_them(number: int, group: bool, school: Path) -> None:
    dice = random.Random(number)
    letters = "abcdefghijklmnopqrstuvwxyz ,."
    rows = ["".join(dice.choices(letters, k=60)) for _ in range(60_000)]
    (school / "text.txt").write_text("\n".join(rows), encoding="utf-8")

    def several(process: int) -> None:
        end = time.monotonic() + 100
        children = Path(f"/proc/{process}/task/{process}/children")
        while len(children.read_text().split()) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.5))

    for twice in (False, True):
        command = [*APT, *LESSON, "--no-doctor", "--out", "run"]
        signals, apart = [number] * (1 + twice), dice.uniform(0, 0.1)
        ended = interrupted(command, school, moment=several, signals=signals, group=group, apart=apart)
        assert (ended.said, ended.code, ended.left) == (LINE, 128 + number, [])


def test_a_keyboard_interrupt_that_cannot_be_raised_ends_the_program_all_the_same() -> None:
    code = (
        "import os, signal, sys\n"
        "from apt_model.commands.starting import ENDING\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "ENDING.listen()\n"
        "class Last:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT); sum(range(10**6))\n"
        "with ENDING:\n"
        "    last = Last(); del last\n"
        "    print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", LINE)


def test_a_child_of_the_program_says_nothing_and_what_has_said_all_keeps_its_code() -> None:
    code = (
        "import os, signal, sys\n"
        "from apt_model.commands.starting import ENDING\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "ENDING.listen()\n"
        "with ENDING:\n"
        "    child = os.fork()\n"
        "    if not child: os.kill(os.getpid(), signal.SIGINT); print('went on', flush=True); os._exit(1)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
        "ENDING.over(3)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "130\n", "")


def test_a_process_that_another_thread_is_forking_while_the_program_ends_is_not_left_over() -> None:
    code = (
        "import os, signal, threading, time\n"
        "from apt_model.commands.starting import ENDING\n"
        "ENDING.listen()\n"
        "def fork():\n"
        "    while True:\n"
        "        if not os.fork(): time.sleep(60); os._exit(0)\n"
        "        forked.set(); time.sleep(0.001)\n"
        "forked = threading.Event()\n"
        "with ENDING:\n"
        "    threading.Thread(target=fork, daemon=True).start()\n"
        "    forked.wait()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr is not None
        assert (process.wait(20), process.stderr.readline().decode()) == (143, LINE)
    assert left_of(process.pid) == []


def test_under_a_launcher_sigterm_stays_what_it_was() -> None:
    code = "from apt_model.commands.starting import ENDING; ENDING.listen(); import os; print(os.getpid()); input()"
    for world, expected in (("1", True), ("4", False)):
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "WORLD_SIZE": world, "RANK": "0"},
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert listens(process.pid) == expected
            process.kill()
