"""The exam: greedy completions of a fixed set of prompts by both models, repeated during training.

Knows what is asked and when; knows nothing of how the models answer, the student is trained or an exam is shown.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
from apt_model.ranks.group import ranks

PROMPTS = 3  # taken from the data if the settings have none
MOST_GIVEN_TOKENS = 256  # longest prompt that is taken from the data


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
    """

    def __init__(
        self,
        display: DisplayConfig,
        *,
        report: Reporter,
        guard: Guard,
        continuations: Continuations,
        by_itself: bool,
    ) -> None:
        self._display, self._report, self._guard, self._continuations = display, report, guard, continuations
        goes_on = by_itself and continuations.tokenizer is not None
        wanted = bool(display.exam_prompts) or (display.exam_prompts is None and goes_on)
        self._goes_on, self._begun = wanted and report.speaks, False
        self._in_template = False  # whether the settings' prompts are asked in the chat template
        self._questions: list[Question] = []
        self._teachers: list[str] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The prompts, as JSON values, so that a resumed run uses the same."""
        questions = [list(question) for question in self._questions]
        return {"begun": self._begun, "prompts": questions, "in_template": self._in_template}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the prompts of `state_dict`; prompts in the settings go before them."""
        self._begun, self._in_template = bool(state["begun"]), bool(state.get("in_template"))
        self._questions = [Question(text, own, (theirs or [own])[0]) for text, own, *theirs in state["prompts"]]
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
        """Choose the prompts; returns whether there are any."""
        if self._display.exam_prompts:
            texts = self._display.exam_prompts
            with undisturbed(self._continuations.accelerator.device):
                if batches:
                    self._in_template = is_asked_in_template(batches, self._continuations.tokenizer)
                own, theirs = (self._encoded(texts, role) for role in ("student", "teacher"))
            self._questions = [Question(*parts) for parts in zip(texts, own, theirs, strict=True)]
            if self._in_template:
                self._report.say("notice.exam_in_template")
        elif batches:
            self._questions = [Question(self._report.decode(own), own, theirs) for own, theirs in beginnings(batches)]
        return bool(self._questions)

    def _encoded(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Prompts of the settings as a model reads them: as a user's turn if the data is chats, else as plain text."""
        tokenizer = self._continuations.tokenizer_of(role)
        if self._in_template and has_template(tokenizer):
            return [question_ids([{"role": "user", "content": text}], tokenizer) for text in texts]
        return encode(texts, tokenizer, UNLIMITED, end=False)

    def _take(self, student: nn.Module, *, epoch: int) -> None:
        if self._goes_on:
            ranks().at("exam")
            answers = self._guard.run("exam", lambda: self._ask(student), None)
            self._goes_on = answers is not None
            if answers is not None:
                self._report.tell(ExamTaken, epoch=epoch, answers=answers)

    def _ask(self, student: nn.Module) -> tuple[ExamAnswer, ...]:
        if self._teachers is None and self._continuations.teacher is not None:
            self._teachers = self._said_by(self._continuations.teacher, "teacher")
        said = self._said_by(student, "student")
        theirs: Sequence[str | None] = self._teachers or [None] * len(said)
        return tuple(
            ExamAnswer(prompt=text, teacher=teacher, student=own)
            for (text, *_), teacher, own in zip(self._questions, theirs, said, strict=True)
        )

    def _said_by(self, model: nn.Module, role: Role) -> list[str]:
        prompts = [getattr(question, role) for question in self._questions]
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
