"""A trainer that does not learn from the teacher is shown as observed, one that does as a distillation."""

import copy
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import Trainer

from apt_model.cli import main
from apt_model.config import DisplayConfig
from apt_model.events.cards import ScoredObservation
from apt_model.events.records import ModelCard, Notice, RunFinished, RunStarted
from apt_model.events.runfile import EVENTS, read_events
from apt_model.i18n import Phrases
from apt_model.integrations import VisualDistillationCallback
from apt_model.render.notebook import NotebookSink
from apt_model.render.terminal import TerminalSink
from apt_model.review.markdown import summary
from apt_model.teaching.advice import OF_OUR_LOSS
from apt_model.teaching.scorer import LessonScorer
from tests.conftest import Listener
from tests.integrations.conftest import EVERY_TIME, LINES
from tests.teaching.test_course import FINISHED, reading, spread
from tests.teaching.test_teaching import SEEN

pytestmark = pytest.mark.filterwarnings("ignore:`[a-z_]*gradient_checkpointing[a-z_]*` is deprecated:FutureWarning")
TAUGHT = {  # what would say that the student is this teacher's pupil
    "zh": ("知识蒸馏", "蒸馏效果", "掌握", "学得", "学会", "老师", "进步", "退步", "学习趋势", "需要加强"),
    "en": ("Knowledge distillation", "as a lesson", "Excellent", "learn", "raduate", "study", "progress", "backwards"),
}
OBSERVING = {"zh": "👀 旁观一次训练：学生与教师对照", "en": "👀 Observing a training run: student beside teacher"}
DISTILLING = {"zh": "🎓 可视化知识蒸馏训练", "en": "🎓 Knowledge distillation, as a lesson"}
Make = Callable[..., Trainer]


@pytest.fixture
def sft(make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Make:
    from trl import SFTConfig, SFTTrainer

    def make(callback: Any) -> Trainer:
        return SFTTrainer(
            make_model(hidden=16, layers=1, seed=7),
            args=SFTConfig(str(tmp_path / "out"), bf16=False, logging_steps=2, max_steps=4, **EVERY_TIME),
            train_dataset=Dataset.from_dict({"text": LINES}),
            processing_class=copy.deepcopy(tokenizer),
            callbacks=[callback],
        )

    return make


@pytest.fixture
def gkd(make_model: Callable[..., Any], teacher: Any, chatty: Any, tmp_path: Path) -> Make:
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    chats = [[{"role": "user", "content": text[:2]}, {"role": "assistant", "content": text[2:]}] for text in LINES]

    def make(callback: Any) -> Trainer:
        return GKDTrainer(
            make_model(hidden=16, layers=1, seed=7),
            teacher_model=teacher,
            args=GKDConfig(str(tmp_path / "out"), bf16=False, lmbda=0.0, max_steps=4, logging_steps=2, **EVERY_TIME),
            train_dataset=Dataset.from_dict({"messages": chats}),
            processing_class=copy.deepcopy(chatty),
            callbacks=[callback],
        )

    return make


@pytest.fixture
def run_started() -> RunStarted:
    one = ModelCard(name="m", parameters=9, megabytes=1.0)
    return RunStarted(
        run_id="r", step=0, teacher=one, student=one, config={}, num_epochs=1, total_steps=1, device="cpu"
    )


def said(events: list[Any], lang: str) -> str:
    """All that a notebook and the summary say of a run, without the sentences on how it could be a distillation."""
    shown: list[str] = []
    sink = NotebookSink(DisplayConfig(lang=lang), show=lambda html: shown.append(html) or shown.append)
    for event in events:
        sink.emit(event)
    say = Phrases.load(lang)
    told = unescape(re.sub("<[^>]*>", "\n", "".join(shown))) + summary(events, say, name="run", pictures={})
    told = told.replace("\\_", "_")
    for offer in (
        say("advice.observed"),
        say("notice.observing"),
        say("notice.names_no_teacher", settings="SFTConfig"),
    ):
        assert offer in told
        told = told.replace(offer, "")
    return told


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_supervised_fine_tuning_is_observed_and_nothing_says_that_the_teacher_taught(
    lang: str, sft: Make, teacher: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"sample_frequency": 1, "lang": lang}
    sft(VisualDistillationCallback(teacher, config=config, run_dir=tmp_path / "run")).train()
    shown = capsys.readouterr().out
    events = list(read_events(tmp_path / "run"))
    (start,), (end,) = ([e for e in events if isinstance(e, kind)] for kind in (RunStarted, RunFinished))
    assert (start.trained_by, start.learns_from_teacher) == ("SFTConfig", False)
    assert {one.key for one in end.advice} <= {"observed", "overfits_since", "from_memory"}
    cards = [event for event in events if isinstance(event, ScoredObservation)]
    assert [card.remark[:2] for card in cards] == ["👀 "] * 5
    assert main(["replay", str(tmp_path / "run"), "--lang", lang]) == 0
    for screen in (shown, capsys.readouterr().out):
        assert OBSERVING[lang] in screen
        assert all(card.remark in screen for card in cards)
    for claim in TAUGHT[lang]:
        assert claim not in said(events, lang), claim


def test_generalized_knowledge_distillation_is_a_lesson(
    gkd: Make, teacher: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gkd(VisualDistillationCallback(teacher, run_dir=tmp_path / "run", config={"lang": "en"})).train()
    assert DISTILLING["en"] in capsys.readouterr().out
    events = list(read_events(tmp_path / "run"))
    assert events[0].learns_from_teacher  # type: ignore[attr-defined]
    assert [n.key for n in events if isinstance(n, Notice)] == ["notice.probe_training"]


@pytest.mark.parametrize(
    ("known", "learns", "keys"),
    [
        (None, False, ["notice.probe_training", "notice.observing", "notice.names_no_teacher"]),
        (False, False, ["notice.probe_training", "notice.observing"]),
        (True, True, ["notice.probe_training"]),
    ],
)
def test_of_a_loss_of_ones_own_the_user_says_whether_it_distils(
    known: bool | None, learns: bool, keys: list[str], make_trainer: Make, teacher: Any, listener: Listener
) -> None:
    callback = VisualDistillationCallback(teacher, sinks=[listener], learns_from_teacher=known)
    make_trainer([callback], max_steps=1).train()
    assert listener.of(RunStarted)[0].learns_from_teacher is learns
    assert [notice.key for notice in listener.of(Notice)] == keys


def test_the_same_callback_judges_the_next_training_as_what_it_is(
    make_trainer: Make, gkd: Make, teacher: Any, listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = VisualDistillationCallback(teacher, sinks=[listener, TerminalSink(DisplayConfig())])
    make_trainer([callback], max_steps=1).train()
    gkd(callback).train()
    first, *_, last = listener.of(ScoredObservation)
    assert first.remark.startswith("👀")
    assert not last.remark.startswith("👀")
    shown = capsys.readouterr().out
    assert shown.index(OBSERVING["zh"]) < shown.index(DISTILLING["zh"])


def test_a_remark_on_an_observed_student_follows_its_laziness_whatever_the_loss(run_started: RunStarted) -> None:
    scorer = LessonScorer(DisplayConfig(), {})
    taught = scorer.comment(5.0, 9.0)
    scorer(replace(run_started, learns_from_teacher=False))
    assert scorer.comment(5.0, 9.0) in ("👀 这一段和教师说得一样", "👀 看不出与教师的差别")
    scorer(run_started)
    assert scorer.comment(5.0, 9.0) == taught
    assert taught.startswith("👍")  # the light of 5 % is green, whatever the loss


def test_advice_on_our_loss_is_left_out_where_another_trainer_trains(run_started: RunStarted) -> None:
    def advised(**by: Any) -> set[str]:
        scorer = LessonScorer(DisplayConfig(), {})
        scorer(replace(run_started, config={"temperature": 4.0, "alpha": 0.7}, vocabulary=1000, **by))
        scorer(replace(SEEN, student_text="", kd_pull=0.1, ce_pull=0.9, softness=0.99))
        for step, mean in ((0, 0.9), (50, 0.7), (100, 0.65)):
            scorer(reading(step, spread(mean)))
        end = scorer(replace(FINISHED, step=100))
        assert isinstance(end, RunFinished)
        return {one.key for one in end.advice}

    assert advised() == {"temperature_blunts", "train_longer"}
    assert advised(trained_by="GKDConfig") == {"train_longer"}
    assert advised(trained_by="SFTConfig", learns_from_teacher=False) == {"observed"}


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_advice_that_names_a_setting_of_our_loss_is_known_to_be_such(lang: str) -> None:
    locale = tomllib.loads(files("apt_model.locales").joinpath(f"{lang}.toml").read_text("utf-8"))
    named = {key for key, said in locale["advice"].items() if re.search(r"\b(alpha|beta|temperature)\b", said)}
    assert named == OF_OUR_LOSS


def test_a_record_from_before_is_still_a_lesson(make_trainer: Make, teacher: Any, tmp_path: Path) -> None:
    make_trainer([VisualDistillationCallback(teacher, sinks=[], run_dir=tmp_path / "run")], max_steps=1).train()
    place = tmp_path / "run" / EVENTS
    first, *others = place.read_text("utf-8").splitlines(keepends=True)
    record = json.loads(first)
    del record["learns_from_teacher"]
    place.write_text(json.dumps(record) + "\n" + "".join(others), encoding="utf-8")
    old = next(iter(read_events(tmp_path / "run")))
    assert isinstance(old, RunStarted)
    assert old.learns_from_teacher
