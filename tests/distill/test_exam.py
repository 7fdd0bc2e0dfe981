"""The exam: what is asked, what is answered, when, and what a failure does."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from apt_model.config import LessonConfig
from apt_model.config.sections import DisplayConfig
from apt_model.data.batch import to_batch
from apt_model.distill.continuations import Continuations
from apt_model.distill.exam import Exam, beginnings
from apt_model.distill.inputs import Data, Models, Watching
from apt_model.distill.loop import distill
from apt_model.distill.reporter import Reporter
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.events.records import ExamTaken, Notice, RunFinished, RunStarted
from apt_model.events.sinks import Audience
from tests.chats import CHATML, byte_level, chat, learn_by_heart, small_llama

PROMPTS = ("互联网", "the network is")
Teach = Callable[..., list[Any]]


@pytest.fixture
def teach(listener: Any, teacher: Any, student: Any, tokenizer: Any, make_batches: Any) -> Teach:
    """Teach for two epochs of three steps; what was told."""

    def run(by_itself: bool = False, **more: Any) -> list[Any]:
        given = {"student": student, "teacher": teacher, "tokenizer": tokenizer}
        data = Data(train=more.pop("batches", make_batches(count=3)), validation=more.pop("eval_batches", None))
        distill(
            Models(**{name: more.pop(name, one) for name, one in given.items()}),
            data,
            config=LessonConfig.from_dict(
                {"num_epochs": 2, "exam_tokens": 5, "learning_rate": 0.05, "card_text": "predicted", **more}
            ),
            device=torch.device("cpu"),
            watching=Watching(audience=Audience([listener]), holds_exams=by_itself),
        )
        return listener.of(ExamTaken)

    return run


def greedy(model: Any, tokenizer: Any, prompt: str, tokens: int) -> str:
    """Token by token over the whole text, as in a textbook."""
    ids = [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
    said: list[int] = []
    for _ in range(tokens):
        with torch.no_grad():
            said.append(int(model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(said, skip_special_tokens=True))


class Reader(nn.Module):
    """A model that has no `generate`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask)


@pytest.mark.parametrize("only_reads", [False, True])
def test_both_answer_greedily_before_the_first_step_and_after_the_last(
    only_reads: bool, teach: Teach, teacher: Any, student: Any, tokenizer: Any
) -> None:
    fresh = [greedy(student, tokenizer, prompt, 5) for prompt in PROMPTS]
    models = {"teacher": Reader(teacher), "student": Reader(student)} if only_reads else {}
    exams = teach(exam_prompts=PROMPTS, **models)
    assert [(exam.step, exam.epoch) for exam in exams] == [(0, 0), (3, 1), (6, 2)]
    for exam, students in ((exams[0], fresh), (exams[-1], [greedy(student, tokenizer, one, 5) for one in PROMPTS])):
        assert [one.prompt for one in exam.answers] == list(PROMPTS)
        assert [one.teacher for one in exam.answers] == [greedy(teacher, tokenizer, one, 5) for one in PROMPTS]
        assert [one.student for one in exam.answers] == students
    assert exams[0].answers != exams[-1].answers


def test_an_answer_of_a_model_that_only_reads_ends_at_its_end_of_text(
    teach: Teach, teacher: Any, tokenizer: Any
) -> None:
    class Scripted(Reader):
        """Says token 7 behind every token but the sixth, and the end of text there."""

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(*input_ids.shape, 64)
            logits[..., 7] = 1.0
            logits[:, 5:6, tokenizer.eos_token_id] = 2.0
            return logits

    exam, *_ = teach(teacher=Scripted(teacher), exam_prompts=("互联网",))
    assert len(tokenizer("互联网")["input_ids"]) == 3, "and one that begins a text"
    assert exam.answers[0].teacher == tokenizer.decode([7, 7])


def test_an_exam_comes_every_so_many_steps_and_the_teacher_answers_once(
    teach: Teach, teacher: Any, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    for model in (teacher, student):
        generate = model.generate
        monkeypatch.setattr(
            model, "generate", lambda *a, _m=model, _g=generate, **k: (asked.append((_m, _m.training)), _g(*a, **k))[1]
        )
    assert [exam.step for exam in teach(exam_prompts=PROMPTS, exam_frequency=2)] == [0, 2, 4, 6]
    assert [model is teacher for model, _ in asked] == [True, False, False, False, False]
    assert not any(training for _, training in asked)


def test_who_gave_no_prompts_is_asked_about_data_only_where_that_is_wanted(
    teach: Teach, make_batches: Any, listener: Any, tokenizer: Any
) -> None:
    assert teach() == []
    (batch, *_) = make_batches(count=3)
    exams = teach(by_itself=True)
    first = tokenizer.decode(batch["input_ids"][0][: max(1, min(8, int(batch["attention_mask"][0].sum()) // 2))])
    assert exams[0].answers[0].prompt == first
    assert len(exams[0].answers) == 3
    assert {tuple(one.prompt for one in exam.answers) for exam in exams} == {
        tuple(one.prompt for one in exams[0].answers)
    }
    (looked_at,) = make_batches(count=1, seed=8)
    listener.events.clear()
    others = teach(by_itself=True, eval_batches=[looked_at])
    assert others[0].answers[0].prompt != first
    listener.events.clear()
    assert teach(by_itself=True, exam_prompts=()) == []
    assert teach(by_itself=True, tokenizer=None) == []


def test_a_prompt_of_data_is_the_question_or_the_first_half_of_a_text_at_most_eight_tokens() -> None:
    ids = torch.arange(10, 110).view(5, 20)
    labels = ids.clone()
    labels[0, :15] = -100  # a question of 15 tokens
    labels[1] = -100  # nothing to learn
    labels[2, 6:] = -100
    mask = torch.ones_like(ids)
    mask[2, 6:] = 0
    batch = to_batch({"input_ids": ids, "labels": labels, "attention_mask": mask})
    assert beginnings([batch]) == [(ids, ids) for ids in (list(range(10, 25)), [50, 51, 52], list(range(70, 78)))]
    nothing = to_batch({"input_ids": ids, "labels": torch.full_like(ids, -100), "attention_mask": mask})
    assert beginnings([nothing, batch]) == beginnings([batch])
    assert beginnings([nothing]) == []


def test_a_cached_teacher_answers_nothing(teach: Teach, teacher: Any, tmp_path: Path) -> None:
    rows = [{"input_ids": [5, 6, 7, 8, 9, 10]}, {"input_ids": [9, 8, 7, 6]}]
    settings = CacheSettings(k=64, temperature=4.0, value_type="float16", max_length=32, packing=False)
    CacheWriter(teacher, rows, settings=settings).run(tmp_path)
    exams = teach(teacher=CachedTeacher(tmp_path), batches=[rows], exam_prompts=PROMPTS)
    assert len(exams) == 3
    assert {one.teacher for exam in exams for one in exam.answers} == {None}
    assert all(one.student for one in exams[-1].answers)


@pytest.mark.parametrize("broken", ["student", "tokenizer", "length"])
def test_an_exam_that_fails_is_told_of_once_and_not_held_again(
    broken: str, teach: Teach, student: Any, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(*args: Any, **more: Any) -> Any:
        calls.append(1)
        raise RuntimeError("no voice today")

    more: dict[str, Any] = {"exam_prompts": PROMPTS}
    if broken == "student":
        monkeypatch.setattr(student, "generate", fail)
    elif broken == "tokenizer":
        more["tokenizer"] = None
    else:
        student.config.rope_parameters = None
        more["exam_prompts"] = ("a" * 80,)
    assert teach(**more) == []
    (notice,) = [one for one in listener.of(Notice) if one.key == "notice.display_failed"]
    assert str(notice.values["failure"]).startswith("exam: ")
    assert len(calls) == (broken == "student")
    (end,) = listener.of(RunFinished)
    assert end.step == 6
    assert len(end.failures) == 1


def test_a_model_that_draws_numbers_as_it_answers_leaves_the_generators_as_they_were(
    teach: Teach, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, seen = student.generate, []

    def states() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    def draw(*args: Any, **more: Any) -> Any:
        random.random(), np.random.rand(), torch.rand(1)
        seen.append(states())
        return generate(*args, **more)

    monkeypatch.setattr(student, "generate", draw)
    after = []
    for prompts in ((), PROMPTS):
        random.seed(3), np.random.seed(3)
        teach(exam_prompts=prompts, seed=3)
        after.append(states())
    assert len(seen) == 3
    assert after[0] == after[1]
    assert after[1] not in seen


def test_only_the_main_process_holds_exams(student: Any, teacher: Any, tokenizer: Any) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise AssertionError("nobody may be asked here")

    student.generate = teacher.generate = fail
    audience = Audience([])
    report = Reporter(audience, tokenizer=tokenizer, device=torch.device("cpu"), speaks=False)
    exam = Exam(
        DisplayConfig(exam_prompts=PROMPTS),
        report=report,
        guard=audience.guard,
        continuations=Continuations(teacher=teacher, tokenizer=tokenizer, accelerator=Accelerator(cpu=True)),
        by_itself=True,
    )
    exam.begin(student, [])
    exam.after_epoch(student, epoch=1)
    assert audience.guard.failures == {}


def test_modes_stay_as_they_were(teach: Teach, student: Any) -> None:
    modes = []
    forward = student.model.forward

    def look(*args: Any, **more: Any) -> Any:
        modes.append((student.training, student.model.layers[0].self_attn.training))
        return forward(*args, **more)

    student.model.forward = look
    teach(exam_prompts=PROMPTS, exam_frequency=1, exam_tokens=1)
    assert modes.count((True, True)) >= 6
    assert set(modes) == {(True, True), (False, False)}
    assert [mode for mode in modes[-2:]] == [(True, True), (False, False)]


def test_a_run_says_how_many_tokens_both_choose_among(teach: Teach, listener: Any, make_model: Any) -> None:
    teach(teacher=make_model(vocabulary=72, seed=5))
    (started,) = listener.of(RunStarted)
    assert started.vocabulary == 64


@pytest.mark.parametrize("in_chats", [True, False])
def test_the_settings_prompts_are_asked_as_the_data_asks(in_chats: bool, listener: Any, monkeypatch: Any) -> None:
    tokenizer, asked = byte_level(CHATML), list[list[int]]()
    answer_ids = Continuations.of

    def heard(self: Any, model: Any, role: Any, beginnings: Any, *, most: int) -> Any:
        asked.extend(beginnings)
        return answer_ids(self, model, role, beginnings, most=most)

    monkeypatch.setattr(Continuations, "of", heard)
    rows = [{"messages": chat("A town?", "Bath.")}] if in_chats else [{"text": "A town? Bath."}]
    distill(
        Models(student=small_llama(seed=1), teacher=small_llama(), tokenizer=tokenizer),
        Data(train=[rows]),
        config=LessonConfig.from_dict({"num_epochs": 1, "exam_prompts": ["A lake?"], "exam_tokens": 2}),
        device=torch.device("cpu"),
        watching=Watching(audience=Audience([listener]), shows_cards=False),
    )
    expected = tokenizer.apply_chat_template(chat("A lake?"), add_generation_prompt=True, return_dict=False)
    assert asked == [expected if in_chats else tokenizer("<s>A lake?")["input_ids"]] * 3  # the teacher's only once
    assert ("notice.exam_in_template" in [event.key for event in listener.of(Notice)]) == in_chats
    assert {answer.prompt for taken in listener.of(ExamTaken) for answer in taken.answers} == {"A lake?"}


def test_an_exams_questions_from_chats_end_with_the_generation_prompt() -> None:
    tokenizer = byte_level(CHATML)
    batch = to_batch([{"messages": chat("A lake?", "Como.") + chat("A town?", "Bath.")}], tokenizer=tokenizer)
    expected = tokenizer.apply_chat_template(chat("A lake?"), add_generation_prompt=True, return_dict=False)
    assert beginnings([batch]) == [(expected, expected)]


@pytest.mark.parametrize("generates", [True, False])
def test_an_answer_ends_with_its_turn_whether_or_not_the_model_generates(generates: bool) -> None:
    tokenizer = byte_level(CHATML)
    model = learn_by_heart(small_llama(), tokenizer, [chat("A lake?", "Como.")])
    speaker = model if generates else Reader(model)
    continuations = Continuations(teacher=None, tokenizer=tokenizer, accelerator=Accelerator(cpu=True))
    asked = tokenizer.apply_chat_template(chat("A lake?"), add_generation_prompt=True, return_dict=False)
    (said,) = continuations.of(speaker, "student", [asked], most=20)
    assert tokenizer.decode(said) == "Como."
