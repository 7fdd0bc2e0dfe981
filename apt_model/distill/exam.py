"""The exam: greedy completions of a fixed set of prompts by both models, repeated during training.

Does not influence the training: eval mode, no gradient, random generators restored. Knows nothing of how the student is
trained or an exam is shown.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from torch import nn

from apt_model.config.sections import DisplayConfig
from apt_model.data.batch import Batch, to_batch
from apt_model.data.encode import UNLIMITED, encode
from apt_model.data.prompts import beginning
from apt_model.data.rng import undisturbed
from apt_model.distill.reporter import Reporter
from apt_model.events.records import ExamTaken
from apt_model.events.results import ExamAnswer
from apt_model.events.sinks import Guard
from apt_model.models.forward import Forward, limits
from apt_model.models.generate import answer_ids
from apt_model.models.modes import in_eval_mode

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
        accelerator: has the device and the autocast.
        teacher: the model, or None for a cached teacher.
        tokenizer: encodes prompts.
        teacher_tokenizer: the teacher's, if it has another one.
        by_itself: hold exams even if the settings have no prompts, with a few from the data.
    """

    def __init__(
        self,
        display: DisplayConfig,
        *,
        report: Reporter,
        guard: Guard,
        accelerator: Accelerator,
        teacher: nn.Module | None,
        tokenizer: Any,
        teacher_tokenizer: Any = None,
        by_itself: bool,
    ) -> None:
        self._display, self._report, self._guard = display, report, guard
        self._accelerator, self._teacher = accelerator, teacher
        self._tokenizers = {"student": tokenizer, "teacher": teacher_tokenizer or tokenizer}
        wanted = bool(display.exam_prompts) or (display.exam_prompts is None and by_itself and tokenizer is not None)
        self._goes_on, self._begun = wanted and report.speaks, False
        self._questions: list[Question] = []
        self._teachers: list[str] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The prompts, as JSON values, so that a resumed run uses the same."""
        return {"begun": self._begun, "prompts": [list(question) for question in self._questions]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the prompts of `state_dict`; prompts in the settings go before them."""
        self._begun = bool(state["begun"])
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
            with undisturbed(self._accelerator.device):
                own, theirs = (encode(texts, one, UNLIMITED, end=False) for one in self._tokenizers.values())
            self._questions = [Question(*parts) for parts in zip(texts, own, theirs, strict=True)]
        elif batches:
            self._questions = [Question(self._report.decode(own), own, theirs) for own, theirs in beginnings(batches)]
        return bool(self._questions)

    def _take(self, student: nn.Module, *, epoch: int) -> None:
        if self._goes_on:
            answers = self._guard.run("exam", lambda: self._ask(student), None)
            self._goes_on = answers is not None
            if answers is not None:
                self._report.tell(ExamTaken, epoch=epoch, answers=answers)

    def _ask(self, student: nn.Module) -> tuple[ExamAnswer, ...]:
        if self._teachers is None and self._teacher is not None:
            self._teachers = self._said_by(self._teacher, "teacher")
        said = self._said_by(extract_model_from_parallel(student), "student")
        theirs: Sequence[str | None] = self._teachers or [None] * len(said)
        return tuple(
            ExamAnswer(prompt=text, teacher=teacher, student=own)
            for (text, *_), teacher, own in zip(self._questions, theirs, said, strict=True)
        )

    def _said_by(self, model: nn.Module, role: str) -> list[str]:
        prompts, most = [getattr(question, role) for question in self._questions], self._display.exam_tokens
        tokenizer, decode = self._tokenizers[role], self._report.decode
        if role == "teacher":
            decode = self._report.decode_teacher
        with undisturbed(self._accelerator.device), in_eval_mode(model), self._accelerator.autocast():
            if hasattr(model, "generate"):
                said = answer_ids(model, tokenizer, prompts, max_new_tokens=most, role=role)
            else:
                end, place = getattr(tokenizer, "eos_token_id", None), self._accelerator.device
                said = [_greedy(model, role, ids, end=end, most=most, place=place) for ids in prompts]
        return [decode(ids) for ids in said]


def beginnings(batches: Sequence[Batch]) -> list[tuple[list[int], list[int]]]:
    """The first distinct prompts in batches on the CPU, at most PROMPTS: (student's ids, teacher's ids)."""
    found: list[tuple[list[int], list[int]]] = []
    for batch in batches:
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


def _greedy(
    model: nn.Module, role: str, prompt: Sequence[int], *, end: int | None, most: int, place: torch.device
) -> list[int]:
    """Greedy completion, one full forward pass a token, for a model without `generate()`."""
    forward, (_, positions), ids = Forward(model, role), limits(model), list(prompt)
    for _ in range(most if positions is None else min(most, positions - len(ids))):
        logits = forward(model, to_batch(torch.tensor([ids])).to(place))
        token = int(logits[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]
