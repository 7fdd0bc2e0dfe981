"""Whole lessons with a teacher whose tokenizer is another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.cli import main
from apt_model.data.teachers_rows import TeachersRows
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.errors import ConfigError, DataError
from apt_model.events.cards import ScoredObservation
from apt_model.events.records import EpochFinished, ExamTaken, Notice, RunStarted, StepDone
from apt_model.events.runfile import read_events
from apt_model.models.generate import generate
from apt_model.models.pretrained import load_model, save_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.conftest import Listener
from tests.data.test_token_text import byte_level

LINES = ["the cat is fun, is it", "人工智能医疗教育", "互联网是全球最大的计算机网络。", "and the network, is large"] * 2
THEIRS = byte_level()
SETTINGS = {"learning_rate": 1e-2, "temperature": 1.0, "seed": 0, "sample_frequency": 1, "cross_tokenizer": "kl"}


@pytest.fixture
def other_teacher(make_model: Callable[..., Any]) -> Any:
    """It speaks in other tokens, more of them."""
    model = make_model(vocabulary=len(THEIRS), seed=5)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model


def taught(student: Any, teacher: Any, tokenizer: Any, *sinks: Any, plain: bool = False, **more: Any) -> Any:
    settings = {**SETTINGS, **more.pop("settings", {})}
    how = {"sinks": list(sinks), "tokenizer": tokenizer, "device": "cpu", "num_epochs": 8, "teacher_tokenizer": THEIRS}
    batches = more.pop("batches", [LINES[:4], LINES[4:]])
    if plain:
        return DistillationPlugin(settings).distill_model(student, teacher, batches, **{**how, **more})
    return VisualDistillationPlugin(settings).visual_distill_model(student, teacher, batches, **{**how, **more})


@pytest.mark.parametrize("kind", ["uld", "kl"])
def test_the_student_comes_nearer_to_a_teacher_in_other_tokens(
    kind: str, student: Any, other_teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    before = {name: value.clone() for name, value in other_teacher.state_dict().items()}
    settings = {"cross_tokenizer": kind, "alpha": 1.0}
    taught(student, other_teacher, tokenizer, listener, settings=settings, eval_dataloader=[LINES[:4]])
    steps = listener.of(StepDone)
    assert steps[-1].kd < 0.8 * steps[0].kd
    (first, *_, last) = listener.of(EpochFinished)
    assert last.validation.kd < first.validation.kd
    assert all(torch.equal(before[name], value) for name, value in other_teacher.state_dict().items())


@pytest.mark.parametrize("prompts", [("互联网", "the"), None])
def test_at_an_exam_each_answers_in_its_own_tokens(
    prompts: tuple[str, ...] | None,
    student: Any,
    other_teacher: Any,
    tokenizer: Any,
    listener: Listener,
    tmp_path: Path,
) -> None:
    settings = {"exam_tokens": 5} | ({"exam_prompts": prompts} if prompts else {})
    taught(student, other_teacher, tokenizer, listener, settings=settings, run_dir=tmp_path / "run")
    answers = listener.of(ExamTaken)[0].answers
    assert len(answers) == (2 if prompts else 3)
    for asked in answers:
        ids = [THEIRS.bos_token_id, *THEIRS(asked.prompt)["input_ids"]]
        said = generate(other_teacher, THEIRS, [ids], new_tokens=5)[0]
        assert asked.teacher == THEIRS.decode(said, skip_special_tokens=True).strip("�")


def test_a_prompt_ends_where_both_tokenizations_do() -> None:
    spans = torch.tensor([[0, 1, 2, 1, 1], [0, 3, 1, 2, 3], [1, 1, 1, 1, 1], [0, 4, 2, 5, 1]])
    rows = TeachersRows(
        input_ids=torch.arange(20).view(2, 10), attention_mask=torch.ones(2, 10, dtype=torch.int64), spans=spans
    )
    assert rows.up_to(0, [7, 8, 9, 6]) == ([7, 8, 9, 6], [0, 1, 2, 3, 4]), "the fourth token ends with theirs"
    assert rows.up_to(0, [7, 8]) == ([7], [0]), "in the middle of a span"
    assert rows.up_to(1, []) == ([], [])


def test_a_card_has_the_teachers_words_by_its_own_tokenizer(
    student: Any, other_teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    theirs = THEIRS("the cat", add_special_tokens=False)["input_ids"]
    with torch.no_grad():  # whatever it reads, it says one token
        other_teacher.lm_head.weight.zero_()
        other_teacher.lm_head.bias = torch.nn.Parameter(torch.zeros(len(THEIRS)), requires_grad=False)
        other_teacher.lm_head.bias[theirs[0]] = 9.0
    taught(student, other_teacher, tokenizer, listener, settings={"max_steps": 1})
    (card,) = listener.of(ScoredObservation)
    word = THEIRS.decode([theirs[0]])
    assert card.teacher_text == word * (len(card.teacher_text) // len(word))
    assert len(card.teacher_text) > len(word)
    assert card.detail is None
    assert 0 < card.normalised_kl <= 1
    (start,) = listener.of(RunStarted)
    assert start.vocabulary is None or start.vocabulary <= 64


def test_both_go_on_from_the_same_text_each_in_its_own_tokens(
    student: Any, other_teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    settings = {"max_steps": 1, "card_text": "continued", "exam_tokens": 4, "learning_rate": 1e-30}
    taught(student, other_teacher, tokenizer, listener, settings=settings)
    (card,) = listener.of(ScoredObservation)
    assert (card.card_text, card.gain) == ("continued", None)
    (line,) = {one for one in LINES if one.startswith(card.given + card.original)}
    assert 4 <= len(card.given) < len(line)
    for model, own, said in ((other_teacher, THEIRS, card.teacher_text), (student, tokenizer, card.student_text)):
        ids = [own.bos_token_id, *own(card.given, add_special_tokens=False)["input_ids"]]
        exact = own.decode(generate(model, own, [ids], new_tokens=4)[0], skip_special_tokens=True)
        assert said == exact.strip("�").replace("�", "▯")


def test_a_visual_run_leaves_the_same_student_as_a_plain_one(
    make_model: Callable[..., Any], other_teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    students = [make_model(hidden=16, layers=1, seed=2) for _ in range(2)]
    taught(students[0], other_teacher, tokenizer, listener)
    taught(students[1], other_teacher, tokenizer, plain=True)
    assert not [notice.key for notice in listener.of(Notice) if notice.key == "notice.head_hidden"]
    pairs = zip(students[0].parameters(), students[1].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_labels_alone_are_the_same_with_and_without_the_other_teacher(
    make_model: Callable[..., Any], other_teacher: Any, teacher: Any, tokenizer: Any, listener: Listener
) -> None:
    other = Listener()
    one, two = (make_model(hidden=16, layers=1, seed=2) for _ in range(2))
    taught(one, other_teacher, tokenizer, listener, settings={"alpha": 0.0})
    batches = [LINES[:4], LINES[4:]]
    plugin = VisualDistillationPlugin({**SETTINGS, "alpha": 0.0, "cross_tokenizer": "refuse"})
    plugin.visual_distill_model(two, teacher, batches, tokenizer=tokenizer, num_epochs=8, device="cpu", sinks=[other])
    mine, theirs = ([step.ce for step in heard.of(StepDone)] for heard in (listener, other))
    assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_run_that_was_cut_goes_on_to_the_same_student(
    make_model: Callable[..., Any], other_teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    whole, cut, again = (make_model(hidden=16, layers=1, seed=2) for _ in range(3))
    taught(whole, other_teacher, tokenizer, run_dir=tmp_path / "whole", settings={"save_steps": 3})
    taught(cut, other_teacher, tokenizer, run_dir=tmp_path / "cut", settings={"save_steps": 3, "save_total_limit": 99})
    checkpoint = tmp_path / "cut" / "checkpoints" / "step-00000003"  # the middle of the second of 8 epochs
    assert checkpoint.exists()
    taught(
        again, other_teacher, tokenizer, run_dir=tmp_path / "cut", resume_from=checkpoint, settings={"save_steps": 3}
    )
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "more", "error", "message"),
    [
        ({"cross_tokenizer": "refuse"}, {}, DataError, "different tokenizers.*or set cross_tokenizer"),
        ({}, {"teacher_tokenizer": None}, ConfigError, "needs both models' tokenizers; got no teacher_tokenizer"),
        ({}, {"batches": [{"input_ids": torch.tensor([[4, 5, 6]])}]}, DataError, "token ids cannot be re-encoded"),
    ],
)
def test_what_cannot_be_aligned_is_refused_before_the_first_step(
    settings: dict[str, str],
    more: dict[str, Any],
    error: type[Exception],
    message: str,
    student: Any,
    other_teacher: Any,
    tokenizer: Any,
    listener: Listener,
) -> None:
    with pytest.raises(error, match=message):
        taught(student, other_teacher, tokenizer, listener, settings=settings, **more)
    assert not listener.of(StepDone)


def test_a_loss_that_needs_one_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss_kind=jsd needs one vocabulary"):
        VisualDistillationPlugin({"cross_tokenizer": "uld", "loss_kind": "jsd"})


def test_one_tokenizer_on_both_sides_is_the_usual_lesson(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any
) -> None:
    one, two = (make_model(hidden=16, layers=1, seed=2) for _ in range(2))
    taught(one, teacher, tokenizer, teacher_tokenizer=tokenizer)
    taught(two, teacher, tokenizer, teacher_tokenizer=None, settings={"cross_tokenizer": "refuse"})
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.fixture
def school(
    other_teacher: Any, student: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A directory with both models and a text file, and the flags that name them."""
    monkeypatch.chdir(tmp_path)
    save_model(other_teacher, THEIRS, "teacher")
    save_model(student, tokenizer, "student")
    Path("text.txt").write_text("\n".join(LINES), encoding="utf-8")
    named = ["--teacher", "teacher", "--student", "student", "--data", "text.txt", "--out", "run"]
    return ["distill", *named, "--device", "cpu", "--max-steps", "3", "--batch-size", "4", "--lang", "en"]


def test_the_command_line_teaches_across_where_it_is_asked_to(school: list[str], capsys: Any) -> None:
    assert main([*school, "--plain"]) == 3
    assert "cross_tokenizer=kl" in capsys.readouterr().err
    how = ["--cross-tokenizer", "kl", "--validation-split", "2"]
    assert main([*school, *how]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "31 have the same text; both are aligned on the text" in said
    assert "Alignment: 100% of the tokens to learn" in said
    assert len([event for event in read_events("run") if isinstance(event, StepDone)]) == 3
    _, kept, _ = load_model("run")
    assert len(kept) == 61  # the student keeps its own tokenizer


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--packing"], "--packing does not work with different tokenizers"),
        (["--control", "1", "--validation-split", "2"], "--control needs a teacher with the student's tokenizer"),
    ],
)
def test_the_command_line_says_what_does_not_go_with_it(
    more: list[str], message: str, school: list[str], capsys: Any
) -> None:
    assert main([*school, "--cross-tokenizer", "uld", *more]) == 2
    assert message in capsys.readouterr().err


def test_a_cached_teacher_is_refused(school: list[str], capsys: Any) -> None:
    cache = ["cache-teacher", "--teacher", "teacher", "--data", "text.txt", "--out", "cache", "--device", "cpu"]
    assert main([*cache, "--k", "4", "--temperature", "1"]) == 0
    assert CachedTeacher("cache").vocabulary
    capsys.readouterr()
    given = [flag for flag in school if flag != "--teacher" and flag != "teacher"]
    assert main([*given, "--teacher-cache", "cache", "--cross-tokenizer", "kl", "--no-doctor"]) == 2
    assert "a cached teacher cannot be used with another tokenizer" in capsys.readouterr().err
