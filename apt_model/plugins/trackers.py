"""Experiment trackers as sinks: TensorBoard, W&B, MLflow, trackio; `report_to=("tensorboard",)` as in transformers.

Metrics go through accelerate's trackers; the cards' texts become markdown, a table or an artifact, as the tracker
allows. A resumed run continues its run in the tracker. Storage and project are set, as usual, by the tracker's own
environment variables. Knows nothing of training.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from apt_model.errors import ConfigError
from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, Notice, RunFinished, RunStarted, StepDone
from apt_model.events.runfile import read_events
from apt_model.events.sinks import Sink
from apt_model.models.devices import accelerate_state_of_our_own
from apt_model.plugins.metrics import numbers
from apt_model.render.sanitise import sanitise
from apt_model.review.markdown import verbatim

PROJECT = "apt-model"
CARDS = "lesson/cards"
COLUMNS = ("step", "epoch", "topic", "laziness", "given", "teacher", "student", "remark")


def trackers(names: Sequence[str], directory: Path | None) -> list[Sink]:
    """A sink for each tracker named.

    Args:
        names: of "tensorboard", "wandb", "mlflow", "trackio".
        directory: the run directory, for trackers that write files; None: they use `runs`.

    Raises:
        ConfigError: one is not installed.
    """
    refuse_missing(names)
    return [_KINDS[name](directory) for name in dict.fromkeys(names)]


def refuse_missing(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        ConfigError: names those that are not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        fix = f"pip install {' '.join(missing)}, or leave it out"
        raise ConfigError("report_to names a tracker that is not installed", got=", ".join(missing), fix=fix)


class _TrackerSink:
    """Base of the trackers' sinks: when the tracker's run begins, what is logged, when cards are written.

    A resumed run gets its old run id only after its first events (which its record cuts off). So the tracker's run
    begins with the first event that is neither the start nor a notice.
    """

    CARDS_AT_ONCE: ClassVar[int] = 20  # cards per table or file; a killed run may lose as many

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._started: RunStarted | None = None
        self._tracker: GeneralTracker | None = None
        self._cards: list[Card] = []
        self._step = 0
        self._has_until: int | None = (
            None  # the last step that a tracker already has of a resumed run, if it cannot delete steps
        )

    def emit(self, event: Event) -> None:
        """Log one event."""
        if isinstance(event, RunStarted):
            self._started = event
        if isinstance(event, RunStarted | Notice):
            return
        if self._tracker is None:
            done = event.step - 1 if isinstance(event, StepDone) else event.step
            self._tracker = self._begin(event.run_id, done)
            self._catch_up(done)
        self._take(event, self._tracker)

    def _take(self, event: Event, tracker: GeneralTracker) -> None:
        if self._has_until is not None and event.step <= self._has_until:
            return
        found, self._step = numbers(event), event.step
        if found:
            self._log(tracker, found)
        if isinstance(event, Card):
            self._cards.append(event)
        if len(self._cards) >= self.CARDS_AT_ONCE or isinstance(event, EpochFinished | RunFinished):
            self._hand_over()

    def close(self) -> None:
        """Write the remaining cards, and end the tracker's run."""
        if self._tracker is None:
            return
        with accelerate_state_of_our_own():
            PartialState()  # accelerate's trackers do nothing without one
            self._hand_over()
            self._tracker.finish()
        self._tracker = None

    def _catch_up(self, done: int) -> None:
        """Log from the record what a killed run had not sent to the tracker yet."""
        if self._has_until is None or self._directory is None or self._tracker is None:
            return
        for event in read_events(self._directory):
            if event.step <= done:
                self._take(event, self._tracker)

    def _hand_over(self) -> None:
        if self._cards and self._tracker is not None:
            self._write(self._tracker, self._cards)
            self._cards = []

    def _settings(self) -> dict[str, Any]:
        """Settings, models and device as plain values."""
        run = self._started
        if run is None:
            return {}
        models = {
            f"{role}_{key}": getattr(getattr(run, role), key) for role in ("teacher", "student") for key in _OF_MODELS
        }
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in run.config.items()
        }
        return {**plain, **models, "device": run.device}

    def _begin(self, run_id: str, done: int) -> GeneralTracker:
        """The tracker with a new run, or with its old run after `done` steps."""
        raise NotImplementedError

    def _log(self, tracker: GeneralTracker, found: Mapping[str, float]) -> None:
        tracker.log(dict(found), step=self._step)

    def _write(self, tracker: GeneralTracker, cards: Sequence[Card]) -> None:
        """Write the texts of cards to the tracker."""
        raise NotImplementedError


_OF_MODELS = ("name", "parameters", "megabytes")


class TensorBoardSink(_TrackerSink):
    """Metrics and cards in `RUN/tensorboard`: `tensorboard --logdir RUN`.

    TensorBoard shows ten texts per name by default (`--samples_per_plugin text=1000` for more), so each epoch's cards
    have their own name.
    """

    CARDS_AT_ONCE = 1

    def _begin(self, run_id: str, done: int) -> GeneralTracker:
        where = self._directory or Path("runs") / run_id
        tracker = _ready(TensorBoardTracker("tensorboard", where, purge_step=done + 1))
        if not done and self._settings():
            tracker.tracker.add_text("lesson/settings", _rows(("", ""), self._settings().items()), 0)
        return tracker

    def _write(self, tracker: GeneralTracker, cards: Sequence[Card]) -> None:
        for card in cards:
            text = _rows(("", ""), zip(COLUMNS, _row(card), strict=True))
            tracker.tracker.add_text(f"{CARDS}/epoch-{card.epoch:03}", text, card.step)
        tracker.tracker.flush()


class WandbSink(_TrackerSink):
    """Metrics, and the cards as one growing table, in the project `WANDB_PROJECT`."""

    def _begin(self, run_id: str, done: int) -> GeneralTracker:
        import wandb

        directory, name = self._directory, self._directory.resolve().name if self._directory else run_id
        settings = wandb.Settings(console="off")  # standard output belongs to the display
        tracker = _ready(
            WandBTracker(
                os.environ.get("WANDB_PROJECT", PROJECT),
                id=run_id,
                name=name,
                dir=str(directory) if directory else None,
                config=self._settings(),
                resume="allow",
                reinit="create_new",
                settings=settings,
            )
        )
        self._table = wandb.Table(columns=list(COLUMNS), log_mode="INCREMENTAL")
        return tracker

    def _write(self, tracker: GeneralTracker, cards: Sequence[Card]) -> None:
        for card in cards:
            self._table.add_data(*_row(card))
        tracker.log({CARDS: self._table}, step=self._step)


class MLflowSink(_TrackerSink):
    """Metrics, and the cards as the artifact `cards.json`, in the experiment `MLFLOW_EXPERIMENT_NAME`."""

    TAG: ClassVar[str] = "apt_model_run"

    def _begin(self, run_id: str, done: int) -> GeneralTracker:
        import mlflow

        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        experiment = mlflow.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        before = []
        if done and experiment is not None:
            before = mlflow.MlflowClient().search_runs([experiment.experiment_id], f"tags.{self.TAG} = '{run_id}'")
        name = self._directory.resolve().name if self._directory else run_id
        mine = before[0].info.run_id if before else None
        tracker = _ready(MLflowTracker(PROJECT, run_id=mine, run_name=name, nested_run=True))
        if mine is None:
            mlflow.set_tag(self.TAG, run_id)
            tracker.store_init_configuration(self._settings())
        else:
            history = mlflow.MlflowClient().get_metric_history(mine, "train/loss")
            self._has_until = max((point.step for point in history), default=0)
        return tracker

    def _log(self, tracker: GeneralTracker, found: Mapping[str, float]) -> None:
        tracker.log(dict(found), step=self._step, synchronous=False)

    def _write(self, tracker: GeneralTracker, cards: Sequence[Card]) -> None:
        import mlflow

        columns = zip(COLUMNS, zip(*map(_row, cards), strict=True), strict=True)
        table = {name: list(values) for name, values in columns}
        mlflow.MlflowClient().log_table(tracker.tracker.info.run_id, table, "cards.json")


class TrackioSink(_TrackerSink):
    """Metrics, and the cards as tables, in the project `TRACKIO_PROJECT`."""

    def _begin(self, run_id: str, done: int) -> GeneralTracker:
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        name = f"{self._directory.resolve().name}-{run_id}" if self._directory else run_id
        settings = self._settings()
        tracker = _ready(TrackioTracker(project, name=name, config=settings, resume="allow", embed=False))
        if done:  # trackio's private counter: if it is ever renamed, points are logged twice
            self._has_until = getattr(tracker.tracker, "_next_step", 0) - 1
        return tracker

    def _write(self, tracker: GeneralTracker, cards: Sequence[Card]) -> None:
        import trackio

        rows = [[verbatim(cell) if isinstance(cell, str) else cell for cell in _row(card)] for card in cards]
        tracker.log({CARDS: trackio.Table(columns=list(COLUMNS), data=rows)}, step=self._step)


_KINDS: Mapping[str, type[_TrackerSink]] = {
    "tensorboard": TensorBoardSink,
    "wandb": WandbSink,
    "mlflow": MLflowSink,
    "trackio": TrackioSink,
}


def _ready(tracker: GeneralTracker) -> GeneralTracker:
    tracker.start()
    return tracker


def _row(card: Card) -> tuple[int | float | str, ...]:
    texts = (card.given, card.teacher_text, card.student_text, card.remark)
    return (card.step, card.epoch, sanitise(card.topic), round(card.laziness, 4), *map(sanitise, texts))


def _rows(head: Sequence[str], rows: Iterator[Any] | Any) -> str:
    lines = [head, ("---",) * len(head), *((verbatim(str(cell)) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
