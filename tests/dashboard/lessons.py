"""Small lessons for the page's tests, written by the real writer of run files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.records import (
    EpochFinished,
    EpochStarted,
    ExamTaken,
    ModelCard,
    Notice,
    RunFinished,
    RunStarted,
    StepDone,
)
from apt_model.events.results import Advice, ExamAnswer, TopicScore
from apt_model.events.runfile import RunFile
from apt_model.events.tokens import TokenDetail

PER_EPOCH, EVERY = 20, 5
TEXT = "互联网是全球最大的网络。"
TOPICS = ("互联网", "医疗")
ALTERNATIVES = (("网", 0.6), ("络", 0.2), ("球", 0.1), ("大", 0.05), ("的", 0.025))


def started(total_steps: int) -> RunStarted:
    """The settings of a lesson."""
    models = {
        "teacher": ModelCard(name="teacher", parameters=4_000_000, megabytes=16.0, layers=4, hidden_size=256),
        "student": ModelCard(name="student", parameters=900_000, megabytes=3.4, layers=2, hidden_size=128),
    }
    config = {"temperature": 2.0, "alpha": 0.7, "beta": 0.3, "sample_frequency": EVERY, "show_samples": True}
    config |= {"show_diff": False, "lang": "zh"}
    return RunStarted(
        run_id="r",
        step=0,
        config=config,
        num_epochs=3,
        total_steps=total_steps,
        device="cpu",
        vocabulary=100,
        laziness_scale=LazinessScale(),
        **models,
    )


def step_done(step: int, *, loss: float | None = None) -> StepDone:
    """A step whose numbers follow from its own."""
    return StepDone(
        run_id="r",
        step=step,
        epoch=(step - 1) // PER_EPOCH + 1,
        batch=(step - 1) % PER_EPOCH,
        loss=4.0 / step if loss is None else loss,
        kd=4.0 / step,
        ce=4.0 / step,
        learning_rate=1e-3,
        grad_norm=1.5,
        tokens=500,
        step_seconds=0.25,
        skipped_batches=0,
    )


def detail(student: str) -> TokenDetail:
    """Token by token: one character each."""
    count = len(TEXT)
    return TokenDetail(
        teacher=tuple(TEXT),
        student=tuple(student),
        kl_nats=tuple(0.01 if one == other else 3.25 for one, other in zip(TEXT, student, strict=True)),
        teacher_top=(ALTERNATIVES,) * count,
        student_top=(ALTERNATIVES[::-1],) * count,
        teacher_entropy=(1.25,) * count,
        student_entropy=(1.5,) * count,
    )


def card(
    step: int, laziness: float, *, text: str = TEXT, topic: str = "互联网", tokens: bool = True
) -> ScoredObservation:
    """What both said at a step; the lazier, the fewer of the student's words are the teacher's."""
    right = round(len(TEXT) * (1 - laziness))
    student = TEXT[:right] + "好" * (len(TEXT) - right)
    return ScoredObservation(
        run_id="r",
        step=step,
        epoch=(step - 1) // PER_EPOCH + 1,
        batch=(step - 1) % PER_EPOCH,
        loss=4.0 / step,
        given="给出",
        teacher_text=TEXT,
        student_text=student,
        input_text=text,
        normalised_kl=laziness,
        agreement=1 - laziness,
        tokens=len(TEXT),
        similarity=1 - laziness,
        laziness=laziness,
        light="green" if laziness < 0.3 else "yellow" if laziness < 0.6 else "red",
        topic=topic,
        remark="👍 不错！",
        detail=detail(student) if tokens else None,
        entropy_gap=0.25 if tokens else None,
    )


def lesson(steps: int = 60, *, tokens: bool = True) -> Iterator[Event]:
    """A whole lesson: a card every five steps, an exam and a report card every twenty, a notice, a verdict.

    Without `tokens`, as older versions recorded it: no tokens, no exams, not a word on how laziness is computed.
    """
    yield started(steps) if tokens else replace(started(steps), laziness_scale=None)
    for step in range(1, steps + 1):
        if step % PER_EPOCH == 1:
            yield EpochStarted(run_id="r", step=step - 1, epoch=step // PER_EPOCH + 1, num_epochs=3)
        yield step_done(step)
        if step % EVERY == 0:
            yield card(step, 1 - step / steps, topic=TOPICS[step // EVERY % 2], tokens=tokens)
        if step == 30:
            yield Notice(run_id="r", step=30, key="notice.head_hidden")
        if step % PER_EPOCH == 0:
            yield from _epoch_end(step, exam=tokens)
    yield RunFinished(
        run_id="r",
        step=steps,
        epochs=3,
        tokens=30_000,
        skipped_batches=0,
        seconds=75.0,
        first_loss=4.0,
        last_loss=0.1,
        samples=12,
        mean_laziness=0.46,
        first_laziness=0.83,
        last_laziness=0.08,
        trend="great_progress",
        advice=(Advice(key="excellent"), Advice(key="laziest_topic", topic="医疗")),
    )


def _epoch_end(step: int, *, exam: bool) -> Iterator[Event]:
    epoch = step // PER_EPOCH
    yield EpochFinished(
        run_id="r",
        step=step,
        epoch=epoch,
        num_epochs=3,
        mean_loss=1.0 / epoch,
        tokens=10_000,
        skipped_batches=0,
        seconds=25.0,
        samples=4,
        mean_laziness=0.9 / epoch,
        topics=(TopicScore(topic="医疗", samples=4, mean_laziness=0.9 / epoch),),
    )
    if exam:
        answer = ExamAnswer(
            prompt="互联网是", teacher="全球最大的网络。", student="全球最大的网络。"[: 2 * epoch] + "好"
        )
        yield ExamTaken(run_id="r", step=step, epoch=epoch, answers=(answer,))


def write(directory: Path, events: Iterator[Event] | list[Event], *, resumes: bool = False) -> Path:
    """The events as a run directory, or at the end of one."""
    file = RunFile(directory, resumes=resumes)
    for event in events:
        file.emit(event)
    file.close()
    return directory


def cards() -> list[ScoredObservation]:
    """The cards of a whole lesson."""
    return [event for event in lesson() if isinstance(event, ScoredObservation)]


def film() -> list[str]:
    """What the page's strip says of them."""
    return [f"第 {card.step} 步 {100 * card.laziness:.0f}%" for card in cards()]
