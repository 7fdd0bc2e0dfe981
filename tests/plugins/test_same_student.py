"""A visual run leaves the same student as a plain one, at every step, to the last byte."""

import copy
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from apt_model.config.sections import DisplayConfig
from apt_model.events.event import Event
from apt_model.events.records import ExamTaken, StepDone
from apt_model.events.runfile import read_events
from apt_model.events.sinks import Sink
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from apt_model.render import notebook as notebook_module
from apt_model.render import watch
from apt_model.render.notebook import NotebookSink
from apt_model.render.terminal import TerminalSink


class Watch:
    """Keeps, at every step, everything that training depends on, as bytes."""

    def __init__(self, student: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.student, self.optimizer = student, optimizer
        self.states: list[tuple[Any, ...]] = []

    def emit(self, event: Event) -> None:
        if not isinstance(event, StepDone):
            return
        weights = tuple(p.detach().numpy().tobytes() for p in self.student.state_dict().values())
        moments = self.optimizer.state_dict()["state"]
        adam = tuple(torch.as_tensor(v).numpy().tobytes() for state in moments.values() for v in state.values())
        rng = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())
        self.states.append((event.step, event.loss, weights, adam, rng))

    def close(self) -> None:
        pass


def terminal() -> Sink:
    return TerminalSink(DisplayConfig(), file=io.StringIO())


def notebook() -> Sink:
    return NotebookSink(DisplayConfig(show_diff=True), show=lambda html: lambda newer: None)


def train(
    display: Sink | None,
    frequency: int,
    make_model: Callable[..., Any],
    teacher: Any,
    tokenizer: Any,
    run_dir: Path | None = None,
    **more: Any,
) -> Watch:
    """12 steps on shuffled strings, with dropout, accumulation and the python, numpy and torch generators seeded."""
    random.seed(7)
    np.random.seed(7)
    student = make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    lines = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 4
    loader = DataLoader(lines, batch_size=2, shuffle=True, collate_fn=list)
    watch = Watch(student, optimizer)
    config = {"sample_frequency": frequency, "gradient_accumulation_steps": 2, "show_diff": True, **more}
    common: dict[str, Any] = {
        "student_model": student,
        "teacher_model": teacher,
        "train_dataloader": loader,
        "optimizer": optimizer,
        "tokenizer": tokenizer,
        "num_epochs": 3,
        "device": "cpu",
    }
    if display is not None:
        VisualDistillationPlugin(config).visual_distill_model(**common, sinks=[display, watch], run_dir=run_dir)
    else:
        DistillationPlugin(config).distill_model(**common, sinks=[watch])
    return watch


@pytest.mark.parametrize("card_text", ["predicted", "continued"])
@pytest.mark.parametrize(("frequency", "display"), [(1, terminal), (7, terminal), (50, terminal), (1, notebook)])
def test_a_visual_run_has_the_weights_optimizer_and_generators_of_a_plain_one_at_every_step(
    frequency: int,
    display: Callable[[], Sink],
    card_text: str,
    make_model: Callable[..., Any],
    teacher: Any,
    tokenizer: Any,
) -> None:
    plain = train(None, frequency, make_model, copy.deepcopy(teacher), tokenizer)
    visual = train(display(), frequency, make_model, copy.deepcopy(teacher), tokenizer, card_text=card_text)
    assert len(plain.states) == 12
    assert plain.states == visual.states
    assert len({state[2] for state in plain.states}) == 12, "the student has to change at every step"
    assert len({state[4][2] for state in plain.states}) > 1, "dropout or shuffling has to draw numbers"


@pytest.mark.parametrize("hides_generate", [False, True])
def test_an_exam_at_every_step_changes_nothing_that_training_depends_on(
    hides_generate: bool, make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    class Reader(torch.nn.Module):
        """A student that only reads: it has no `generate`."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits

    def make(**sizes: Any) -> Any:
        return Reader(make_model(**sizes)) if hides_generate else make_model(**sizes)

    plain = train(None, 1, make, copy.deepcopy(teacher), tokenizer)
    exams = {"exam_prompts": ("互联网", "the network"), "exam_frequency": 1, "exam_tokens": 6}
    visual = train(terminal(), 1, make, copy.deepcopy(teacher), tokenizer, tmp_path / "run", **exams)
    assert plain.states == visual.states
    held = [event for event in read_events(tmp_path / "run") if isinstance(event, ExamTaken)]
    assert [exam.step for exam in held] == list(range(13))
    assert len({exam.answers for exam in held}) > 1, "the student has to answer otherwise as it learns"


def test_a_model_that_draws_numbers_when_it_answers_changes_nothing(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any
) -> None:
    def draw(*_: Any) -> None:
        assert random.random() + np.random.rand() + torch.rand(1).item() >= 0

    plain = train(None, 1, make_model, copy.deepcopy(teacher), tokenizer)
    restless = copy.deepcopy(teacher)
    answer = restless.generate
    restless.generate = lambda *args, **more: (draw(), answer(*args, **more))[1]
    exams = {"exam_prompts": ("互联网",), "exam_tokens": 2}
    assert train(terminal(), 1, make_model, restless, tokenizer, **exams).states == plain.states


def test_a_display_that_draws_numbers_and_fails_changes_nothing(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(None, 1, make_model, copy.deepcopy(teacher), tokenizer)

    def wild(self: Any, laziness_percent: float, loss: float) -> str:
        if random.random() + torch.rand(1).item() + np.random.rand() > 1.5:
            raise RuntimeError("out of words")
        return "?"

    monkeypatch.setattr(VisualDistillationPlugin, "generate_comment", wild)
    assert train(terminal(), 1, make_model, copy.deepcopy(teacher), tokenizer).states == plain.states


def test_in_a_notebook_whose_display_fails_the_student_is_the_same_and_the_verdict_says_so(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(html: str) -> Callable[[str], None]:
        raise RuntimeError("the notebook was closed")

    monkeypatch.setattr(watch, "in_notebook", lambda: True)
    monkeypatch.setattr(notebook_module, "show_in_place", closed)
    students, verdicts = [], []
    for plugin in (VisualDistillationPlugin(), DistillationPlugin()):
        student = make_model(hidden=16, layers=1, seed=7)
        lesson = plugin.visual_distill_model if isinstance(plugin, VisualDistillationPlugin) else plugin.distill_model
        verdicts.append(lesson(student, teacher, [["互联网", "人工智能"]] * 3, tokenizer=tokenizer, device="cpu"))
        students.append([p.detach().numpy().tobytes() for p in student.parameters()])
    assert verdicts[0].failures == ("NotebookSink: RuntimeError: the notebook was closed",)
    assert verdicts[0].step == 9
    assert students[0] == students[1]
