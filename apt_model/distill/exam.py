"""The exam: greedy completions of a fixed set of prompts by both models, repeated during training.

Knows what is asked and when; knows nothing of how the models answer, the student is trained or an exam is shown.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from accelerate.utils import extract_model_from_parallel
from torch import nn

from apt_model.config.sections import DisplayConfig
from apt_model.data.answering import is_asked_in_template
from apt_model.data.batch import Batch
from apt_model.data.encode import UNLIMITED, encode, question_ids
from apt_model.data.prompts import beginning
from apt_model.data.rng import undisturbed
from apt_model.data.template import has_template
from apt_model.distill.continuations import Continuations, Role
from apt_model.distill.reporter import Reporter
from apt_model.events.records import ExamTaken
from apt_model.events.results import ExamAnswer
from apt_model.events.sinks import Guard
from apt_model.models.forward import limits
from apt_model.ranks.group import ranks

PROMPTS = 3  # taken from the data if the settings have none
MOST_GIVEN_TOKENS = 256  # longest prompt that is taken from the data, or from the page


class Question(NamedTuple):
    """A prompt, as text and as token ids of each model's tokenizer."""

    text: str
    student: list[int]
    teacher: list[int]


class Exam:
    """Completes the prompts with both models before the first step and then at intervals; the first failure ends it.

    Args:
        display: prompts, how often, how long an answer may be.
        report: tells the audience.
        guard: isolates and reports failures.
        continuations: lets the models answer; has their tokenizers.
        by_itself: hold exams even if the settings have no prompts, with a few from the data.
        listen: reads the questions asked from outside so far; answered from the next exam on. None: no one asks.
    """

    def __init__(
        self,
        display: DisplayConfig,
        *,
        report: Reporter,
        guard: Guard,
        continuations: Continuations,
        by_itself: bool,
        listen: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self._display, self._report, self._guard, self._continuations = display, report, guard, continuations
        self._from_data = display.exam_prompts is None and by_itself and continuations.tokenizer is not None
        self._listen = listen if continuations.tokenizer is not None else None
        wanted = bool(display.exam_prompts) or self._from_data or self._listen is not None
        self._goes_on, self._begun = wanted and report.speaks, False
        self._in_template = False  # whether the settings' prompts are asked in the chat template
        self._questions: list[Question] = []
        self._asked: list[Question] = []  # from outside
        self._left_out: set[str] = set()  # of those asked from outside
        self._teachers: dict[bool, list[str]] = {False: [], True: []}  # answers to our own questions, and to asked ones

    def state_dict(self) -> dict[str, Any]:
        """The prompts, as JSON values, so that a resumed run uses the same."""
        questions = [list(question) for question in self._questions]
        asked = [list(question) for question in self._asked]
        return {"begun": self._begun, "prompts": questions, "in_template": self._in_template, "asked": asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the prompts of `state_dict`; prompts in the settings go before them."""
        self._begun, self._in_template = bool(state["begun"]), bool(state.get("in_template"))
        self._questions = [Question(text, own, (theirs or [own])[0]) for text, own, *theirs in state["prompts"]]
        self._asked = [Question(*question) for question in state.get("asked", ())]
        if self._begun and self._goes_on:
            self._goes_on = self._guard.run("exam", lambda: self._choose(()), False)

    @property
    def waits(self) -> bool:
        """Whether the exam before the first step is still to be held."""
        return self._goes_on and not self._begun

    def begin(self, student: nn.Module, batches: Sequence[Batch]) -> None:
        """Choose the prompts, from `batches` if the settings have none, and hold the exam before the first step."""
        if self.waits:
            self._begun = True
            self._goes_on = self._guard.run("exam", lambda: self._choose(batches), False)
            self._take(student, epoch=0)

    def after_step(self, student: nn.Module, *, step: int, epoch: int) -> None:
        """Hold the exam every `exam_frequency` steps."""
        every = self._display.exam_frequency
        if every is not None and step % every == 0:
            self._take(student, epoch=epoch)

    def after_epoch(self, student: nn.Module, *, epoch: int) -> None:
        """Hold the exam at an epoch's end, if `exam_frequency` is not set."""
        if self._display.exam_frequency is None:
            self._take(student, epoch=epoch)

    def _choose(self, batches: Sequence[Batch]) -> bool:
        """Choose the prompts; returns whether there are any, or may be."""
        texts = self._display.exam_prompts or ()
        if batches and (texts or self._listen):
            with undisturbed(self._continuations.accelerator.device):
                self._in_template = is_asked_in_template(batches, self._continuations.tokenizer)
        if texts:
            self._questions = self._as_questions(texts)
            if self._in_template:
                self._report.say("notice.exam_in_template")
        elif batches and self._from_data:
            self._questions = [Question(self._report.decode(own), own, theirs) for own, theirs in beginnings(batches)]
        return bool(self._questions) or self._listen is not None

    def _as_questions(self, texts: Sequence[str]) -> list[Question]:
        with undisturbed(self._continuations.accelerator.device):
            own, theirs = (self._encoded(texts, role) for role in ("student", "teacher"))
        return [Question(*parts) for parts in zip(texts, own, theirs, strict=True)]

    def _hear(self, student: nn.Module) -> None:
        """Take in what was asked since the last exam; what is too long for a model is told of, and left out."""
        known = {question.text for question in self._asked} | self._left_out
        for text in () if self._listen is None else self._listen():
            if text in known:
                continue
            known.add(text)
            self._left_out.add(text)  # unless all of the following goes well
            (question,) = self._as_questions([text])
            if self._fits(question, student):
                self._left_out.remove(text)
                self._asked.append(question)
            else:
                self._report.say("notice.question_left_out", question=text)

    def _fits(self, question: Question, student: nn.Module) -> bool:
        """Whether each model can read the question and has room for an answer: it comes from whoever sees the page."""
        models = [(student, question.student), (self._continuations.teacher, question.teacher)]
        for model, ids in models:
            vocabulary, positions = (None, None) if model is None else limits(extract_model_from_parallel(model))
            if not 0 < len(ids) <= MOST_GIVEN_TOKENS or len(ids) >= (positions or len(ids) + 1):
                return False
            if max(ids) >= (vocabulary or max(ids) + 1):
                return False
        return True

    def _encoded(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Prompts of the settings as a model reads them: as a user's turn if the data is chats, else as plain text."""
        tokenizer = self._continuations.tokenizer_of(role)
        if self._in_template and has_template(tokenizer):
            return [question_ids([{"role": "user", "content": text}], tokenizer) for text in texts]
        return encode(texts, tokenizer, UNLIMITED, end=False)

    def _take(self, student: nn.Module, *, epoch: int) -> None:
        if self._goes_on:
            ranks().at("exam")
            self._guard.run("question", lambda: self._hear(student), None)
            answers = self._guard.run("exam", lambda: self._answers(student), None)
            self._goes_on = answers is not None
            if answers:
                self._report.tell(ExamTaken, epoch=epoch, answers=answers)

    def _answers(self, student: nn.Module) -> tuple[ExamAnswer, ...]:
        """Both models' answers: to our own questions as if nobody had asked, then to those asked from outside."""
        return (*self._ask(student, self._questions), *self._ask(student, self._asked, asked=True))

    def _ask(self, student: nn.Module, questions: Sequence[Question], *, asked: bool = False) -> Iterator[ExamAnswer]:
        if not questions:
            return
        known, teacher = self._teachers[asked], self._continuations.teacher
        if teacher is not None and len(known) < len(questions):  # it answers a question once
            known += self._said_by(teacher, "teacher", questions[len(known) :])
        theirs: Sequence[str | None] = known or [None] * len(questions)
        said = self._said_by(student, "student", questions)
        for question, taught, own in zip(questions, theirs, said, strict=True):
            yield ExamAnswer(prompt=question.text, teacher=taught, student=own, asked=asked)

    def _said_by(self, model: nn.Module, role: Role, questions: Sequence[Question]) -> list[str]:
        prompts = [getattr(question, role) for question in questions]
        decode = self._report.decode_teacher if role == "teacher" else self._report.decode
        return [decode(ids) for ids in self._continuations.of(model, role, prompts, most=self._display.exam_tokens)]


def beginnings(batches: Sequence[Batch]) -> list[tuple[list[int], list[int]]]:
    """The first distinct prompts in batches on the CPU, at most PROMPTS: (student's ids, teacher's ids)."""
    found: list[tuple[list[int], list[int]]] = []
    for batch in (batch.apart for batch in batches):
        for row, (ids, labels, mask) in enumerate(
            zip(batch.input_ids, batch.labels, batch.attention_mask, strict=True)
        ):
            prompt = beginning(ids, labels, mask)
            both = (prompt, prompt) if batch.teachers is None else batch.teachers.up_to(row, prompt)
            if 0 < len(both[0]) <= MOST_GIVEN_TOKENS and both not in found:
                found.append(both)
            if len(found) == PROMPTS:
                return found
    return found
