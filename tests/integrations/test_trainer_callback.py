"""What the callback tells of a trainer's training, and what it refuses."""

import copy
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.data import IterableDataset
from transformers import Trainer

from apt_model.cli import main
from apt_model.errors import ConfigError, DataError, ModelError, StorageError
from apt_model.events.cards import Reading, ScoredObservation
from apt_model.events.records import EpochFinished, EpochStarted, Notice, RunFinished, RunStarted, StepDone
from apt_model.events.runfile import read_events
from apt_model.integrations import VisualDistillationCallback
from tests.conftest import Listener

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def lesson(teacher: Any, tokenizer: Any, listener: Listener) -> Callable[..., VisualDistillationCallback]:
    def make(every: int = 2, **how: Any) -> VisualDistillationCallback:
        how = {"sinks": [listener], **how}
        return VisualDistillationCallback(teacher, tokenizer, {"sample_frequency": every, "temperature": 2.0}, **how)

    return make


Lesson = Callable[..., VisualDistillationCallback]


def test_a_training_is_told_as_a_lesson(make_trainer: MakeTrainer, lesson: Lesson, listener: Listener) -> None:
    trainer = make_trainer([lesson()])
    trainer.train()
    assert [type(event) for event in listener.events] == [
        *(RunStarted, Notice, Notice, Notice),
        *(
            EpochStarted,
            ScoredObservation,
            Reading,
            StepDone,
            ScoredObservation,
            StepDone,
            StepDone,
            ScoredObservation,
            StepDone,
        ),
        *(Reading, EpochFinished),
        *(EpochStarted, StepDone, ScoredObservation, StepDone, StepDone, ScoredObservation, StepDone),
        *(Reading, EpochFinished, RunFinished),
    ]
    (start,), (end,) = listener.of(RunStarted), listener.of(RunFinished)
    assert (start.num_epochs, start.total_steps, start.trained_by) == (2, 8, "TrainingArguments")
    assert (start.config["temperature"], start.config["sample_frequency"]) == (2.0, 2)
    assert "learning_rate" not in start.config, "how to train is not ours to say"
    cards = listener.of(ScoredObservation)
    assert [card.step for card in cards] == [0, 2, 4, 6, 8]
    assert [card.batch for card in cards] == [0, 3, 7, 3, 7]
    assert {card.source for card in cards} == {"probe"}
    assert (end.epochs, end.step, end.samples, end.tokens) == (2, 8, 5, None)
    assert listener.closed


def test_the_numbers_of_a_step_are_those_the_trainer_logged(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener
) -> None:
    trainer = make_trainer([lesson()], logging_steps=2, include_num_input_tokens_seen="all")
    trainer.train()
    logged = [log for log in trainer.state.log_history if "loss" in log]
    steps = listener.of(StepDone)
    assert [(s.step, s.loss, s.grad_norm, s.learning_rate) for s in steps] == [
        (log["step"], log["loss"], log["grad_norm"], log["learning_rate"]) for log in logged
    ]
    assert {(s.kd, s.ce) for s in steps} == {(None, None)}
    assert sum(s.tokens for s in steps) == trainer.state.num_input_tokens_seen == listener.of(RunFinished)[0].tokens
    epochs = listener.of(EpochFinished)
    assert [e.mean_loss for e in epochs] == pytest.approx(
        [sum(log["loss"] for log in logged[half : half + 2]) / 2 for half in (0, 2)]
    )
    assert sum(e.tokens for e in epochs) == trainer.state.num_input_tokens_seen


def test_a_card_shows_a_row_of_the_probe_with_its_own_loss(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, teacher: Any, rows: Any, make_model: Any
) -> None:
    student = make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1)
    before = copy.deepcopy(student).eval()
    make_trainer([lesson()], model=student, max_steps=2).train()
    first = listener.of(ScoredObservation)[0]
    ids = torch.tensor([rows[0]["input_ids"]])
    with torch.no_grad():
        own, theirs = (model(input_ids=ids).logits[0, :-1] for model in (before, teacher))
    kd = 4 * F.kl_div((own / 2).log_softmax(-1), (theirs / 2).softmax(-1), reduction="sum") / len(own)
    ce = F.cross_entropy(own, ids[0, 1:])
    assert first.loss == pytest.approx(float(0.7 * kd + 0.3 * ce), rel=1e-5)
    assert first.agreement == pytest.approx((own.argmax(-1) == theirs.argmax(-1))[4:].float().mean().item())
    assert first.input_text == "互联网是全球最大的计算机网络。"
    assert listener.of(ScoredObservation)[1].input_text == "人工智能"


def test_all_rows_of_the_probe_are_read_at_the_start_at_set_steps_and_at_each_epochs_end(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, teacher: Any, rows: Any, make_model: Any
) -> None:
    student = make_model(hidden=16, layers=1, seed=7, attention_dropout=0.1)
    before = copy.deepcopy(student).eval()
    callback = VisualDistillationCallback(teacher, config={"reading_frequency": 3}, sinks=[listener])
    make_trainer([callback], model=student).train()
    readings = listener.of(Reading)
    assert [(one.epoch, one.step, one.unseen) for one in readings] == [
        *((0, 0, False), (1, 3, False), (1, 4, False), (2, 6, False), (2, 8, False))
    ]
    assert len(readings[0].texts) == len(readings[0].rows) == min(16, len(rows))
    ids = torch.tensor([rows[1]["input_ids"]])
    with torch.no_grad():
        q, p = (model(input_ids=ids).logits[0, :-1].double().log_softmax(-1) for model in (before, teacher))
    row = readings[0].rows[1]
    assert row.tokens == len(q)
    assert row.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert row.ce == pytest.approx(float(-q.gather(1, ids[0, 1:, None]).mean()), rel=1e-5)
    assert row.agreement == pytest.approx(float((q.argmax(-1) == p.argmax(-1)).double().mean()))


def test_rows_of_the_trainers_evaluation_data_are_unseen(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, rows: Any
) -> None:
    trainer = make_trainer([lesson()], eval_dataset=rows[2:4])
    trainer.evaluate()
    trainer.train()
    assert {(one.unseen, len(one.rows)) for one in listener.of(Reading)} == {(True, 2)}


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_a_report_card_has_its_loss_when_the_trainer_logs_at_the_end_of_an_epoch(
    strategy: str, make_trainer: MakeTrainer, lesson: Lesson, listener: Listener
) -> None:
    trainer = make_trainer([lesson()], logging_strategy=strategy, logging_steps=4)
    trainer.train()
    logged = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert [epoch.mean_loss for epoch in listener.of(EpochFinished)] == logged
    last = [type(e) for e in listener.events if not isinstance(e, Reading)][-4:]
    assert last == [ScoredObservation, StepDone, EpochFinished, RunFinished]
    kinds = [type(e) for e in listener.events]
    assert Reading in kinds[kinds.index(EpochStarted) + 3 : kinds.index(EpochFinished)], "besides the one at the start"


@pytest.mark.parametrize(
    ("how", "key", "values"),
    [
        ({"logging_steps": 500}, "notice.logs_late", {"every": 500, "total": 8}),
        ({"logging_strategy": "no"}, "notice.never_logs", {}),
    ],
)
def test_a_trainer_that_keeps_its_loss_to_itself_is_told_of(
    how: Any, key: str, values: Any, make_trainer: MakeTrainer, lesson: Lesson, listener: Listener
) -> None:
    make_trainer([lesson()], **how).train()
    assert (key, values) in [(notice.key, notice.values) for notice in listener.of(Notice)]
    assert [epoch.mean_loss for epoch in listener.of(EpochFinished)] == [None, None]
    assert listener.of(RunFinished)[0].last_loss is None


@pytest.mark.parametrize(
    ("how", "epochs", "steps"),
    [({"num_train_epochs": 1.5}, 2, 6), ({"max_steps": 3}, 1, 3), ({"max_steps": 9}, 3, 9)],
)
def test_a_part_of_an_epoch_is_an_epoch_too(
    how: Any, epochs: int, steps: int, make_trainer: MakeTrainer, lesson: Lesson, listener: Listener
) -> None:
    make_trainer([lesson()], **how).train()
    assert [event.epoch for event in listener.of(EpochFinished)] == list(range(1, epochs + 1))
    assert {event.num_epochs for event in listener.of(EpochStarted)} == {epochs}
    assert listener.of(RunFinished)[0].step == listener.of(RunStarted)[0].total_steps == steps


def test_evaluations_are_no_steps_and_outside_of_training_nothing_is_told(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, rows: Any
) -> None:
    trainer = make_trainer([lesson()], eval_dataset=rows[2:4], eval_strategy="steps", eval_steps=1)
    trainer.evaluate()
    assert listener.events == []
    trainer.train()
    told = len(listener.events)
    trainer.evaluate()
    assert len(listener.events) == told
    assert len(listener.of(StepDone)) == 8
    first = listener.of(Notice)[0]
    assert (first.key, first.values) == ("notice.probe_validation", {"rows": 2})
    assert listener.of(ScoredObservation)[0].input_text == "the network, is large."


def test_a_probe_of_texts_serves_a_stream_and_a_stream_alone_is_refused(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, rows: Any, tmp_path: Path
) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(rows)

    def train(**how: Any) -> None:
        callback = lesson(run_dir=tmp_path / "run", **how)
        make_trainer([callback], train_dataset=Stream(), max_steps=6).train()

    with pytest.raises(DataError, match=r"stream.*Fix: pass probe="):
        train()
    train(probe=["全球最大", "the network"])
    assert [card.input_text for card in listener.of(ScoredObservation)] == ["全球最大", "the network"] * 2
    assert {event.num_epochs for event in listener.of(EpochStarted)} == {1, 2}


def test_the_record_can_be_seen_again(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, tmp_path: Path, capsys: Any
) -> None:
    make_trainer([lesson(run_dir=tmp_path / "run", every=4)]).train()
    assert list(read_events(tmp_path / "run"))[1:] == listener.events[1:]
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "run"), "--lang", "en"]) == 0
    shown = capsys.readouterr().out
    assert "🔧 Settings: TrainingArguments; sample loss: T=2.0, α=0.7, β=0.3" in shown
    assert "A sample is shown every 4 steps" in shown
    assert shown.count("📍 Step ") == 3
    assert shown.count("📉 Sample's loss: ") == 3
    assert "Training loss went from " in shown
    assert "tokens" not in shown, "nobody counted them"


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"learning_rate": 1e-3}, ConfigError, "learning_rate cannot be in config. Fix: set it in the trainer's own"),
        ({"sample_frequncy": 3}, ConfigError, "did you mean 'sample_frequency'"),
    ],
)
def test_bad_settings_are_refused_at_once(teacher: Any, config: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        VisualDistillationCallback(teacher, config=config)


@pytest.mark.parametrize("nobody", [None, "Qwen/Qwen3-8B"])
def test_no_teacher_is_refused_at_once(nobody: Any) -> None:
    with pytest.raises(ModelError, match="teacher is not a model; got"):
        VisualDistillationCallback(nobody)


def test_what_cannot_be_shown_is_refused_before_the_first_step(
    make_trainer: MakeTrainer, lesson: Lesson, teacher: Any, tokenizer: Any, rows: Any, tmp_path: Path
) -> None:
    def refused(error: type[Exception], said: str, callback: Any, **how: Any) -> None:
        trainer = make_trainer([callback], **how)
        with pytest.raises(error, match=said):
            trainer.train()
        assert trainer.state.global_step == 0

    other = copy.deepcopy(tokenizer)
    other.add_tokens(["新词"])
    refused(DataError, "different tokenizers", VisualDistillationCallback(teacher, other, sinks=[]))
    refused(ModelError, "same model", lesson(), model=teacher)
    refused(DataError, "no probe row has a label", lesson(probe={"input_ids": [[5, 6]], "labels": [[-100, -100]]}))
    refused(DataError, "token id outside the student's vocabulary", lesson(probe={"input_ids": [[5, 64]]}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").touch()
    refused(StorageError, "already holds a run", lesson(run_dir=tmp_path / "run"))


def test_without_a_tokenizer_of_its_own_the_trainers_decodes(
    make_trainer: MakeTrainer, teacher: Any, listener: Listener
) -> None:
    make_trainer([VisualDistillationCallback(teacher, sinks=[listener])], max_steps=1).train()
    assert listener.of(ScoredObservation)[0].given == "互联网是"


def test_what_fails_in_the_display_never_ends_training(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, teacher: Any, make_model: Any
) -> None:
    class Falls:
        def emit(self, event: Any) -> None:
            raise OSError("no more paper")

        def close(self) -> None:
            pass

    class Mute(VisualDistillationCallback):
        def generate_comment(self, laziness_percent: float, loss: float) -> str:
            raise RuntimeError("out of words")

    asked = []

    def broken(*arguments: Any, **more: Any) -> None:
        asked.append(1)
        if len(asked) > 1:
            raise RuntimeError("the teacher left")

    teacher.register_forward_pre_hook(broken)
    trainer = make_trainer([Mute(teacher, config={"sample_frequency": 1}, sinks=[Falls(), listener])])
    trainer.train()
    assert trainer.state.global_step == 8
    assert len(asked) == 3, "neither a card nor a reading that failed is tried again"
    failures = listener.of(RunFinished)[0].failures
    assert [failure.split(":")[0] for failure in failures] == ["Falls", "generate_comment", "reading", "probe"]
    assert trainer.model.training
    assert len(listener.of(ScoredObservation)) == 1


def test_a_bug_in_what_the_callback_itself_does_never_ends_training(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer([lesson()])
    monkeypatch.setattr("apt_model.integrations.trainer_run.TrainerRun.log", lambda *a: 1 / 0)
    trainer.train()
    assert trainer.state.global_step == 8
    assert listener.of(RunFinished)[0].failures == ("VisualDistillationCallback: ZeroDivisionError: division by zero",)


def test_topics_remarks_and_statistics_are_ones_own(
    make_trainer: MakeTrainer, teacher: Any, listener: Listener
) -> None:
    class Gentle(VisualDistillationCallback):
        def generate_comment(self, laziness_percent: float, loss: float) -> str:
            return f"{laziness_percent:.0f}"

    callback = Gentle(teacher, config={"sample_frequency": 4}, sinks=[listener])
    assert callback.stats["total_samples"] == 0
    callback.topic_keywords["全球"] = ["全球"]
    trainer = make_trainer([callback])
    trainer.train()
    cards = listener.of(ScoredObservation)
    assert [card.remark for card in cards] == [f"{100 * card.laziness:.0f}" for card in cards]
    assert callback.stats["total_samples"] == 3
    assert len(callback.stats["epoch_laziness"]) == 2
    trainer.train()
    assert callback.stats["total_samples"] == 3, "a new training is a new lesson"


def test_a_student_with_a_wider_head_is_cut_to_the_teachers(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, make_model: Any
) -> None:
    make_trainer([lesson()], model=make_model(hidden=16, layers=1, vocabulary=72), max_steps=2).train()
    assert [n.values for n in listener.of(Notice) if n.key == "notice.vocabulary_cut"] == [
        {"teacher": 64, "student": 72, "shared": 64}
    ]


def test_a_resumed_training_goes_on_in_its_own_record(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    whole = make_trainer(**saving)
    whole.train()
    make_trainer([lesson(run_dir=tmp_path / "run", sinks=[])], **saving).train()
    for count in (1, 2):
        listener.events.clear()
        again = make_trainer([lesson(run_dir=tmp_path / "run")], **saving)
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
        where = tmp_path / "run" / ("from-step-6" if count == 1 else "from-step-6-2")
        assert list(read_events(where))[1:] == listener.events[1:]
    notice = listener.of(Notice)[-1]
    assert (notice.key, notice.values) == ("notice.trainer_resumed", {"step": 6, "path": str(where)})
    assert [event.step for event in listener.of(StepDone)] == [7, 8]
    assert [event.epoch for event in listener.of(EpochFinished)] == [2]
    assert [(card.step, card.batch) for card in listener.of(ScoredObservation)] == [(6, 3), (8, 7)]
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_adapter_of_peft_is_a_student_like_any_other(
    make_trainer: MakeTrainer, lesson: Lesson, listener: Listener, make_model: Any
) -> None:
    from peft import LoraConfig, get_peft_model

    def train(*callbacks: Any) -> list[torch.Tensor]:
        torch.manual_seed(5)
        adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.2, task_type="CAUSAL_LM")
        model = get_peft_model(make_model(hidden=16, layers=1, seed=7), adapter)
        make_trainer(list(callbacks), model=model).train()
        return [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]

    plain, watched = train(), train(lesson(every=1))
    assert all(map(torch.equal, plain, watched))
    assert len(listener.of(ScoredObservation)) == 9
    losses = [card.loss for card in listener.of(ScoredObservation)]
    assert len(set(losses)) == 9, "the adapter learns, and is seen to"


def test_another_process_than_the_first_looks_but_says_nothing(
    make_trainer: MakeTrainer, teacher: Any, listener: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    teacher.register_forward_pre_hook(lambda *a: asked.append(1))
    callback = VisualDistillationCallback(teacher, sinks=[listener], run_dir=tmp_path / "run")
    trainer = make_trainer([callback])
    monkeypatch.setattr(type(trainer), "is_world_process_zero", lambda self: False)
    trainer.train()
    assert asked, "a sharded student needs every process"
    assert callback.stats["total_samples"] == 0
    assert listener.events == []
    assert not (tmp_path / "run").exists()


def test_the_cards_go_where_tqdms_bar_is_lifted(make_trainer: MakeTrainer, teacher: Any, capsys: Any) -> None:
    """The default: cards on standard output, the trainer's own bar on standard error, and neither in the other's."""
    make_trainer([VisualDistillationCallback(teacher, config={"sample_frequency": 4})], disable_tqdm=False).train()
    shown = capsys.readouterr()
    assert shown.out.count("📍 第 ") == 3
    assert shown.out.count("🎉") == 1
    assert "8/8" in shown.err


def test_on_a_terminal_the_bar_stands_in_no_card(
    make_trainer: MakeTrainer, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    make_trainer([VisualDistillationCallback(teacher, config={"sample_frequency": 4})], disable_tqdm=False).train()
    screen = pyte.Screen(80, 200)
    pyte.Stream(screen).feed(terminal.getvalue().replace("\n", "\r\n"))
    lines = [line.rstrip() for line in screen.display]
    assert sum("📍 第 " in line for line in lines) == 3
    assert [line[:4] for line in lines if "8/8" in line] == ["100%"], "one bar, below everything"
    assert all(line[-1] in "│┐┘┤║╗╝╣" for line in lines if line[:1] and line[:1] in "│┌└├║╔╚╠")
