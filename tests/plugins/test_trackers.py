"""The lesson in a tracker, read back with the tracker's own reader; a resumed run is one run, with no step twice."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.cards import Reading, ScoredObservation
from apt_model.events.records import Notice, RunFinished, StepDone
from apt_model.events.results import MeanEstimate, ReadingSummary, RowReading
from apt_model.events.runfile import read_events
from apt_model.integrations.trainer_callback import VisualDistillationCallback
from apt_model.plugins import trackers
from apt_model.plugins.metrics import numbers
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.conftest import Listener
from tests.dashboard import lessons

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化"] * 2
STEPS = list(range(1, 7))  # three epochs of two batches; a card on every step
LEFT = [1, 2, 3, 4, 6]  # of the cards, where texts wait for others: the fifth one died with the process


class Broken(BaseException):
    """What breaks a run off in these tests."""


class Breaker:
    """Breaks a run off when it hears of a step, as a kill would: nothing is saved then."""

    def __init__(self, step: int) -> None:
        self._step = step

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step == self._step:
            raise Broken

    def close(self) -> None:
        pass


class Failing(trackers.TensorBoardSink):
    """A tracker that fails at once."""

    def _log(self, tracker: Any, found: Any) -> None:
        raise OSError("the tracker is gone")


@pytest.fixture
def teach(make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path) -> Callable[..., Any]:
    def teach(*report_to: str, run: str = "run", resumes: bool = False, sinks: Sequence[Any] = ()) -> Any:
        student = make_model(hidden=16, layers=1, seed=3)
        config = {"sample_frequency": 1, "seed": 0, "report_to": report_to, "learning_rate": 1e-2, "save_steps": 1}
        VisualDistillationPlugin(config).visual_distill_model(
            student_model=student,
            teacher_model=teacher,
            train_dataloader=[LINES[:4], LINES[4:]],
            eval_dataloader=[LINES[:4]],
            tokenizer=tokenizer,
            num_epochs=3,
            device="cpu",
            run_dir=tmp_path / run,
            resume_from=tmp_path / run if resumes else None,
            sinks=sinks,
        )
        return student

    return teach


@pytest.fixture
def broken_and_resumed(teach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A run that was broken off in its sixth step, when its newest checkpoint was of the fifth, and went on.

    Killed, it leaves the tracker as it was: nobody closes it.
    """

    def run(name: str, *, killed: bool = True) -> None:
        with monkeypatch.context() as patch:
            if killed:
                patch.setattr(trackers._TrackerSink, "close", lambda sink: None)
            with pytest.raises(Broken):
                teach(name, sinks=[Breaker(6)])
        teach(name, resumes=True)

    return run


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def tensorboard(run: Path) -> Any:
    """What TensorBoard would show of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    kept.Reload()
    return kept


def tensorboard_texts(kept: Any) -> Iterator[tuple[int, str]]:
    for tag in kept.Tags()["tensors"]:
        if tag.startswith("lesson/cards"):
            yield from ((one.step, one.tensor_proto.string_val[0].decode()) for one in kept.Tensors(tag))


def test_tensorboard_has_every_number_and_every_card_and_the_student_is_the_same(
    teach: Callable[..., Any], tmp_path: Path
) -> None:
    assert same(teach("tensorboard"), teach(run="other"))
    kept, events = tensorboard(tmp_path / "run"), list(read_events(tmp_path / "run"))
    steps = [event for event in events if isinstance(event, StepDone)]
    cards = [event for event in events if isinstance(event, ScoredObservation)]
    assert len(steps) == len(cards) == 6
    assert [(one.step, one.value) for one in kept.Scalars("train/loss")] == [
        (step.step, pytest.approx(step.loss, rel=1e-6)) for step in steps
    ]
    assert [one.value for one in kept.Scalars("lesson/laziness")] == pytest.approx([card.laziness for card in cards])
    assert [one.step for one in kept.Scalars("validation/loss")] == [2, 4, 6]
    texts = dict(tensorboard_texts(kept))
    assert sorted(texts) == STEPS
    assert all(card.topic in texts[card.step] for card in cards)


def test_a_resumed_run_goes_on_in_tensorboard_without_a_step_twice(
    broken_and_resumed: Callable[..., None], tmp_path: Path
) -> None:
    broken_and_resumed("tensorboard")
    kept = tensorboard(tmp_path / "run")
    assert [one.step for one in kept.Scalars("train/loss")] == STEPS
    assert sorted(step for step, _ in tensorboard_texts(kept)) == STEPS


def test_a_tracker_that_fails_is_told_of_once_and_the_student_is_the_same(
    teach: Callable[..., Any], listener: Listener, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(trackers._KINDS, "tensorboard", Failing)  # type: ignore[arg-type]
    assert same(teach("tensorboard", sinks=[listener]), teach(run="other"))
    told = [notice for notice in listener.of(Notice) if notice.key == "notice.display_failed"]
    assert [notice.values["failure"] for notice in told] == ["Failing: OSError: the tracker is gone"]
    (verdict,) = listener.of(RunFinished)
    assert verdict.failures == ("Failing: OSError: the tracker is gone",)
    assert "training goes on" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(
    name: str, teach: Callable[..., Any], tmp_path: Path
) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed here")
    with pytest.raises(ConfigError, match=f"not installed; got {name}.*pip install {name}"):
        teach(name)
    assert not (tmp_path / "run" / "events.jsonl").exists()


def test_a_tracker_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="report_to"):
        LessonConfig.from_dict({"report_to": ("tensorbord",)})


def test_one_tracker_may_be_named_without_a_list() -> None:
    assert LessonConfig.from_dict({"report_to": "tensorboard"}).display.report_to == ("tensorboard",)


def test_in_another_trainer_the_trackers_are_its_own(teacher: Any) -> None:
    with pytest.raises(ConfigError, match=r"report_to cannot be in config.*trainer's own arguments"):
        VisualDistillationCallback(teacher, config={"report_to": ("tensorboard",)})


class Slow(trackers._TrackerSink):
    """A tracker that had written three steps of a run when it was killed."""

    def _begin(self, run_id: str, done: int) -> Any:
        self._has_until = 3
        self.logged: list[tuple[int, float]] = []
        return self

    def _log(self, tracker: Any, found: Any) -> None:
        self.logged += [(self._step, found["train/loss"])] if "train/loss" in found else []


def test_what_a_killed_tracker_had_not_written_is_taken_from_the_record(tmp_path: Path) -> None:
    record = [lessons.started(6), *(lessons.step_done(step) for step in STEPS)]
    tracker = Slow(lessons.write(tmp_path / "run", record))
    tracker.emit(lessons.step_done(6))
    assert tracker.logged == [(step, 4.0 / step) for step in (4, 5, 6)]


# --- the others, where they are installed


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_is_one_run_of_mlflow(
    broken_and_resumed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lessons")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    broken_and_resumed("mlflow")
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name("lessons").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert run.data.params["temperature"] == "4.0"
    for key in ("train/loss", "lesson/laziness"):
        assert [point.step for point in client.get_metric_history(run.info.run_id, key)] == STEPS
    table = client.load_table(experiment, "cards.json", [run.info.run_id])
    assert list(table["step"]) == LEFT


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_is_one_run_of_trackio(
    broken_and_resumed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("TRACKIO_PROJECT", "lessons")
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    broken_and_resumed("trackio")
    (run,) = list(trackio.Api().runs("lessons"))
    logs = SQLiteStorage.get_logs("lessons", run.name)
    for key in ("train/loss", "lesson/laziness"):
        assert [log["step"] for log in logs if key in log] == STEPS
    rows = [row["step"] for log in logs if "lesson/cards" in log for row in log["lesson/cards"]["_value"]]
    assert rows == LEFT


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_is_one_run_of_wandb(
    broken_and_resumed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    broken_and_resumed("wandb", killed=False)  # this process would still hold the run
    kept = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len({next(one.glob("*.wandb")).name for one in kept}) == 1  # run-ID.wandb: one run, in two parts
    tables = [json.loads(path.read_text("utf-8")) for one in kept for path in (one / "files").rglob("*.table.json")]
    assert {step for table in tables for step, *_ in table["data"]} == set(STEPS)


def test_a_reading_is_logged_by_kind_with_a_scorer_or_without() -> None:
    row = RowReading(tokens=10, kl=0.5, normalised_kl=0.4, agreement=0.5, ce=2.0, teacher_ce=None, echo=0.0)
    seen = Reading(run_id="r", step=0, epoch=0, unseen=True, rows=(row, replace(row, tokens=30, agreement=0.9)))
    assert numbers(seen) == pytest.approx(
        {"reading/unseen/agreement": 0.8, "reading/unseen/kl": 0.5, "reading/unseen/perplexity": math.exp(2)}
    )
    mean = MeanEstimate(value=0.25, error=0.01)
    scored = ReadingSummary(rows=2, tokens=40, agreement=mean, kl=mean, ce=mean, laziness=mean, teacher_ce=None)
    found = numbers(replace(seen, unseen=False, measured=scored))
    assert found.keys() == {f"reading/learned/{key}" for key in ("agreement", "kl", "laziness", "perplexity")}
