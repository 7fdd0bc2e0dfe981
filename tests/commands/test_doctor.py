"""`apt-model doctor`, and the doctor at the start of `distill`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wcwidth import wcswidth

from apt_model.cli import main
from apt_model.events.runfile import read_events
from apt_model.models.pretrained import save_model
from tests.distill.checkpoints.test_resume import TIMES

HOME = Path(__file__).parent.parent.parent
FIXED = ["--teacher", "teacher", "--data", "text.txt", "--device", "cpu", "--batch-size", "8"]
NEW = ["--student", "layers=1,hidden=16"]
LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 8


@pytest.fixture(autouse=True)
def school(teacher: Any, student: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "teacher")
    save_model(student, tokenizer, "student")
    Path("text.txt").write_text("\n".join(LINES), encoding="utf-8")
    with Path("masked.jsonl").open("w") as file:
        for line in LINES:
            ids = tokenizer(line)["input_ids"]
            file.write(json.dumps({"input_ids": ids, "labels": [-100] * len(ids)}) + "\n")
    return tmp_path


def test_a_lesson_that_is_well_ends_with_0_and_leaves_nothing_behind(
    school: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(school.iterdir())
    assert main(["doctor", *FIXED, "--student", "student", "--out", "runs/new", "--lang", "en"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert f"✅ Tokenizers: all {len(tokenizer)} ids" in shown.out
    assert "✅ The lesson can begin" in shown.out
    assert all(len(line) <= 78 for line in shown.out.splitlines())
    assert sorted(school.iterdir()) == before


def test_the_doctor_reads_the_recipe_as_the_lesson_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *FIXED, *NEW, "--recipe", "no-such-one"]) == 2
    assert "no such recipe" in capsys.readouterr().err
    shown = []
    for recipe in ([], ["--recipe", "fresh"]):
        assert main(["doctor", *FIXED, *NEW, *recipe, "--lang", "en"]) == 0
        shown.append("4.0" in capsys.readouterr().out)
    assert shown == [True, False], "the recipe's temperature is 1"


def test_a_broken_set_up_is_told_of_in_a_list_and_one_line_with_its_code(
    student: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = type(tokenizer).from_pretrained("teacher")
    other.add_tokens(["新"])
    save_model(student, other, "other")
    for broken in (["--student", "other"], ["--student", "student", "--data", "masked.jsonl"]):
        for command in (["doctor"], ["distill", "--out", "run"]):
            assert main([*command, *FIXED, *broken]) == 3
            shown = capsys.readouterr()
            assert shown.err.startswith("error[DATA]: ")
            assert shown.err.count("\n") == 1
            assert "先别上课：有 1 处" in shown.out
            assert not Path("run/events.jsonl").exists()


@pytest.mark.parametrize("more", [[], ["--packing", "--max-length", "16"], ["--streaming", "--max-steps", "4"]])
def test_a_run_with_the_doctor_gives_the_same_student_byte_for_byte(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for doctor in ("doctor", "no-doctor"):
        lesson = ["distill", *FIXED, *NEW, "--out", doctor, f"--{doctor}", "--num-epochs", "1", *more]
        assert main(lesson) == 0
        assert ("上课前的检查" in capsys.readouterr().out) is (doctor == "doctor")
    one, two = (Path(f"{name}/student/model.safetensors").read_bytes() for name in ("doctor", "no-doctor"))
    assert one == two
    one_record, two_record = (
        [{k: v for k, v in vars(e).items() if k not in (*TIMES, "run_id")} for e in read_events(name)]
        for name in ("doctor", "no-doctor")
    )
    assert one_record == two_record


def test_an_unwritable_place_is_told_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *FIXED, *NEW, "--out", "text.txt/run"]) == 5
    assert capsys.readouterr().err.startswith("error[STORAGE]: ")


CHATML = "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '\\n' }}{% endfor %}"


def test_a_row_that_only_the_template_refuses_is_named_with_its_line(
    teacher: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    speaking = type(tokenizer).from_pretrained("teacher")
    speaking.chat_template = CHATML
    save_model(teacher, speaking, "speaking")
    good = {"messages": [{"role": "user", "content": "人工"}, {"role": "assistant", "content": "智能"}]}
    bad = {"messages": [{"role": "narrator", "content": "Once"}]}
    Path("text.txt").unlink()
    Path("chats.jsonl").write_text("\n".join(map(json.dumps, [*[good] * 6, bad, good])))
    given = ["doctor", "--teacher", "speaking", *NEW, "--data", "chats.jsonl", "--device", "cpu", "--batch-size", "4"]
    assert main([*given, "--lang", "en"]) == 3
    assert "chats.jsonl, line 7: turn 1 of a chat has an unknown speaker; got 'narrator'" in capsys.readouterr().err


def test_the_doctor_tells_nothing_of_the_rows_in_warnings(
    teacher: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would be English, and shown with a line of our code; here a warning is an error."""
    rows = [{"question": "人工", "answer": "智能", "tools": [{"name": "f"}]}] * 8
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = ["doctor", "--teacher", "teacher", *NEW, "--data", "asked.jsonl", "--device", "cpu", "--batch-size", "4"]
    for more in ([], ["--packing"]):
        assert main([*given, *more, "--lang", "zh"]) == 0
        assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"prompt": "q", "completion": None}, "completion of a row is null"),
        ({"prompt": [{"role": "narrator", "content": "q"}], "completion": "a"}, "narrator"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--packing"], ["--no-doctor"]])
def test_a_row_that_cannot_be_learned_is_named_by_its_line_by_every_command(
    bad: Any, said: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"prompt": "the network", "completion": "is large."}
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (good, good, bad)), encoding="utf-8")
    lesson = [*FIXED, *NEW, "--data", "rows.jsonl", *more]
    for words in (["distill", "--out", "run", *lesson], ["evaluate", "teacher", "--data", "rows.jsonl"]):
        assert main(words) == 3
        shown = capsys.readouterr().err
        assert "rows.jsonl, line 3: " in shown
        assert said in shown or "chat template" in shown
        assert shown.count("error[") == 1


def test_data_that_another_flag_overruled_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    Path("more.txt").write_text("the network, is large.\n" * 8, encoding="utf-8")
    words = ["distill", "--out", "run", *FIXED, *NEW, "--data", "more.txt", "--num-epochs", "1", "--no-doctor"]
    assert main(words) == 0
    assert "以最后一次为准：more.txt；没有读：" in "".join(capsys.readouterr().out.split())


def test_a_plan_loads_nothing_and_fits_the_screen() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "apt_model", "doctor", "--plan", "teacher=70B", "student=8B"]
    for columns in (40, 80):
        env = {**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(HOME)}
        done = subprocess.run([*words, "gpus=8x80"], env=env, capture_output=True, text=True, check=True)
        assert not re.search(r"\| +(torch|transformers|numpy)$", done.stderr, flags=re.MULTILINE)
        lines = done.stdout.splitlines()
        assert "141.1" in done.stdout
        assert max(wcswidth(line) for line in lines if not line.strip().startswith("torchrun")) < columns


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_plan_of_directories_counts_their_parameters(lang: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--plan", "teacher=teacher", "student=student", "gpus=1x1", "--lang", lang]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "config" in shown.out
    assert "DDP" not in shown.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--plan", "teacher=70B", "studnet=8B"], "Fix: did you mean student?"),
        (["--plan", "teacher=70B", "student=8B", "gpus=-1"], "gpus is no number of cards"),
        (["--plan", "teacher=70B", "student=8B", "--batch-size", "3"], "--plan stands alone; got --batch-size"),
        (["--plan"], "expected at least one argument"),
        (["--teacher", "teacher"], "the following arguments are required: --student, --data"),
    ],
)
def test_a_plan_that_is_not_understood_ends_with_2_in_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err
    assert shown.err.count("\n") == 1
