"""Questions asked from the page: answered at the next exam by both, marked, kept, without a trace in the student."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.config import LessonConfig
from apt_model.distill.inputs import Data, Models, Watching
from apt_model.distill.loop import distill
from apt_model.errors import ConfigError
from apt_model.events.questions import QUESTIONS, add_question
from apt_model.events.records import ExamTaken, Notice
from apt_model.events.sinks import Audience
from apt_model.plugins.session import refuse_unrecorded_dashboard
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.distill.test_exam import greedy

Teach = Callable[..., list[ExamTaken]]


@pytest.fixture
def teach(listener: Any, teacher: Any, make_model: Any, tokenizer: Any, make_batches: Any) -> Teach:
    """Teach the same student anew for two epochs of three steps; the exams."""

    def run(asked: Any, **more: Any) -> list[Any]:
        listener.events.clear()
        run.student = make_model(seed=11)  # type: ignore[attr-defined]
        distill(
            Models(student=run.student, teacher=teacher, tokenizer=tokenizer),  # type: ignore[attr-defined]
            Data(train=make_batches(count=3)),
            config=LessonConfig.from_dict(
                {"num_epochs": 2, "exam_tokens": 5, "learning_rate": 0.05, "card_text": "predicted", "seed": 3, **more}
            ),
            device=torch.device("cpu"),
            watching=Watching(audience=Audience([listener]), asked=asked),
        )
        return list(listener.of(ExamTaken))

    return run


def test_a_question_is_answered_at_the_next_exam_by_both_and_marked(teach: Teach, teacher: Any, tokenizer: Any) -> None:
    asked: list[str] = []

    def listen() -> list[str]:
        asked.append("the network")  # one more each time, always the same
        return asked if len(asked) > 1 else []

    exams = teach(listen, exam_prompts=("互联网",))
    assert [[(one.prompt, one.asked) for one in exam.answers] for exam in exams] == [
        [("互联网", False)],
        [("互联网", False), ("the network", True)],
        [("互联网", False), ("the network", True)],
    ]
    said = exams[-1].answers[-1]
    assert said.teacher == greedy(teacher, tokenizer, "the network", 5)
    assert said.student == greedy(teach.student, tokenizer, "the network", 5)  # type: ignore[attr-defined]


def test_without_prompts_of_its_own_a_run_holds_exams_of_what_was_asked_alone(teach: Teach) -> None:
    assert teach(lambda: [], exam_prompts=()) == []
    assert [[one.prompt for one in exam.answers] for exam in teach(lambda: ["a"], exam_prompts=())] == [["a"]] * 3
    assert teach(None, exam_prompts=()) == []


def test_the_student_and_the_other_answers_are_the_same_to_the_byte_whoever_asks(teach: Teach) -> None:
    kept = []
    for asked in (None, lambda: ["the network is", "互联网是全球", "a" * 290, "</s><s>"]):
        exams = teach(asked, exam_prompts=("互联网",))
        weights = {name: one.clone() for name, one in teach.student.state_dict().items()}  # type: ignore[attr-defined]
        kept.append((weights, [exam.answers[0] for exam in exams]))
    assert kept[0][1] == kept[1][1]
    assert all(torch.equal(one, kept[1][0][name]) for name, one in kept[0][0].items())


def test_a_question_too_long_for_a_model_is_told_of_and_ends_no_exam(
    teach: Teach, teacher: Any, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher.config, "rope_parameters", None)  # then 64 positions are all there are
    monkeypatch.setattr(teacher.config, "max_position_embeddings", 64)
    exams = teach(lambda: ["a" * 200, "b"], exam_prompts=("互联网",))
    assert [[one.prompt for one in exam.answers] for exam in exams] == [["互联网", "b"]] * 3
    told = [one.values["question"] for one in listener.of(Notice) if one.key == "notice.question_left_out"]
    assert told == ["a" * 200]


def test_a_file_that_cannot_be_read_costs_the_questions_and_not_the_exam(teach: Teach) -> None:
    def fail() -> list[str]:
        raise OSError("no disk today")

    assert [[one.prompt for one in exam.answers] for exam in teach(fail, exam_prompts=("互联网",))] == [["互联网"]] * 3


def test_questions_of_a_run_are_kept_where_it_is_resumed(
    teacher: Any, make_model: Any, tokenizer: Any, make_batches: Any, tmp_path: Path, listener: Any
) -> None:
    settings = {"exam_tokens": 5, "exam_prompts": ["互联网"], "ask": True, "seed": 3, "card_text": "predicted"}

    def lesson(steps: int, resume: bool) -> list[list[str]]:
        listener.events.clear()
        plugin = VisualDistillationPlugin({**settings, "max_steps": steps, "exam_frequency": 1})
        plugin.visual_distill_model(
            student_model=make_model(seed=11),
            teacher_model=teacher,
            train_dataloader=make_batches(count=4),
            tokenizer=tokenizer,
            num_epochs=1,
            sinks=[listener],
            device="cpu",
            run_dir=tmp_path / "run",
            resume_from=tmp_path / "run" if resume else None,
            resume_anyway=resume,
        )
        return [[one.prompt for one in exam.answers] for exam in listener.of(ExamTaken)]

    class Ask:
        """Asks when the first step is done, as a viewer would."""

        def emit(self, event: Any) -> None:
            if event.step == 1:
                add_question(tmp_path / "run", "the network")

        def close(self) -> None:
            """Nothing is open."""

    listener_emit, ask = listener.emit, Ask()
    listener.emit = lambda event: (ask.emit(event), listener_emit(event))
    first = lesson(2, False)
    assert first[0] == ["互联网"]
    assert first[-1] == ["互联网", "the network"]
    (tmp_path / "run" / QUESTIONS).write_bytes(b"")  # only the checkpoint knows of it
    assert lesson(4, True) == [["互联网", "the network"]] * 2


def test_questions_need_a_run_directory() -> None:
    with pytest.raises(ConfigError, match="ask needs a run directory"):
        refuse_unrecorded_dashboard(LessonConfig.from_dict({"ask": True}).display, None)
