"""`apt-model distill --control`: the same students trained without the teacher, and how much the teacher helped.

A control starts from the student's initial weights with the same seed, data order and number of steps, but trains on
the labels alone. Knows nothing of how a student is trained.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_model.commands.console import print_line, speaker
from apt_model.config import LessonConfig, settings
from apt_model.errors import ConfigError, brief
from apt_model.events.evaluation import Evaluation, figure
from apt_model.events.runfile import CONFIG, EVENTS, STUDENT, SUMMARY
from apt_model.i18n import Phrases
from apt_model.ranks.group import ranks
from apt_model.teaching.course import T_95

if TYPE_CHECKING:
    from apt_model.commands.lesson import Lesson

FOLDER, RESULTS = "control", "control.json"
ALONE = {"alpha": 0.0, "beta": 1.0, "hidden_weight": 0.0, "attention_weight": 0.0, "on_policy": 0.0}
UNSEEN = {"dashboard": False, "ask": False}  # a browser page for the run itself, none for its controls
MOST_SEEDS = 10


class Control:
    """Trains the controls of a distillation, and compares them with its students.

    Args:
        config: of the distillation.
        lesson: trains and evaluates.
        seeds: how many students and controls in all; the first student is the one that `distill` trains anyway.
        out: the run directory; the controls go into a folder of it.
        first: that student before training.
        remake: makes an untrained student; a fresh one by the seed that is set.
    """

    def __init__(
        self, config: LessonConfig, lesson: "Lesson", *, seeds: int, out: Path, first: Any, remake: Callable[[], Any]
    ) -> None:
        start = config.train.seed or 0
        self._config, self._lesson, self._out, self._remake = config, lesson, out, remake
        self._seeds = range(start, start + seeds)
        self._first = deepcopy(first)
        self._say = speaker(config.display.lang)

    def run(self, student: Any) -> None:
        """Train the controls, and the students of the other seeds; print and save the comparison.

        Args:
            student: the first one, trained.
        """
        found: dict[int, Evaluation] = {}
        for turn, seed in enumerate(self._seeds, start=1):
            own = self._with_seed(seed)
            which = {"turn": turn, "turns": len(self._seeds), "seed": seed}
            fresh = self._first
            if turn > 1:
                fresh = self._made(seed)
                student = deepcopy(fresh)
                print_line(self._say("control.student_begins", **which))
                student = self._trained(own, student, f"student-{seed}")
            print_line(self._say("control.begins", **which))
            alone = LessonConfig.from_dict({**own.to_dict(), **ALONE})
            control = self._trained(alone, fresh, f"control-{seed}")
            found[seed] = self._lesson.judge(own, student, control)
        self._show(found)
        path = self._out / RESULTS
        by_seed = {str(seed): one for seed, one in found.items()}
        with ranks().agreed("save the comparison"):
            if ranks().is_first:
                Evaluation({"seeds": by_seed, **overall(list(found.values()))}).save(path)
        print_line(self._say("control.saved", path=path))

    def _with_seed(self, seed: int) -> LessonConfig:
        return LessonConfig.from_dict({**self._config.to_dict(), "seed": seed, **UNSEEN})

    def _made(self, seed: int) -> Any:
        from accelerate.utils import set_seed

        set_seed(seed)
        return self._remake()

    def _trained(self, config: LessonConfig, student: Any, name: str) -> Any:
        """The student after its run: loaded if the run is finished already, else trained, or its run resumed."""
        from apt_model.models.pretrained import load_model

        folder, is_finished, is_begun = ranks().of_first(partial(self._found, config, name), "look for a run of before")
        out = Path(folder)
        if is_finished:
            return load_model(str(out))[0]
        self._lesson.run(config, student, out, plain=True, resume_from=out if is_begun else None)
        return student

    def _found(self, config: LessonConfig, name: str) -> tuple[str, bool, bool]:
        """The run directory of that name, and whether its run is finished, and begun."""
        out = self._folder(config, name)
        return str(out), (out / SUMMARY).exists() and (out / STUDENT).exists(), (out / EVENTS).exists()

    def _folder(self, config: LessonConfig, name: str) -> Path:
        """The run directory of that name, numbered anew if it holds a run with other training settings."""
        places = (self._out / FOLDER / f"{name}{turn}" for turn in ("", *(f"-{turn}" for turn in range(2, 1000))))
        meant = _learning(config.to_dict())
        return next(place for place in places if not (place / CONFIG).exists() or _learned_by(place) == meant)

    def _show(self, found: Mapping[int, Evaluation]) -> None:
        from apt_model.render.evaluation import show_evaluation

        first = next(iter(found.values()))
        show_evaluation(first, lang=self._config.display.lang)
        for seed, one in found.items():
            if len(found) > 1 and "gap_closed" in one:
                print_line(
                    self._say("control.seed", seed=seed, **_sides(one), closed=figure("gap_closed", one["gap_closed"]))
                )
        for seed, one in found.items():
            if "gap_closed" not in one:
                print_line(self._say("control.worth_nothing", seed=seed))
        line = verdict(list(found.values()), self._say)
        if line is not None:
            print_line(line)


def _learning(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that training depends on: all but the display's."""
    return {key: config.get(key, field.default) for section, key, field in settings() if section != "display"}


def _learned_by(place: Path) -> dict[str, Any]:
    """The settings that the run in a directory was trained with.

    Raises:
        ModelError: its config cannot be read.
    """
    from apt_model.models.directory import damaged, read_object

    config = read_object(place / CONFIG, str(place)).get("config")
    if not isinstance(config, dict):
        raise damaged(str(place), CONFIG, f"config={brief(config)}", "the settings of a run")
    return _learning(config)


def refuse_control(arguments: argparse.Namespace, config: LessonConfig) -> None:
    """Refuse a control that could not be compared, before anything is loaded.

    Raises:
        ConfigError: no seed or more than ten, no validation data, a cached teacher, different tokenizers, or a run
            that is resumed with changed settings.
    """
    if arguments.resume_anyway:
        got, fix = "--resume-anyway", "leave --control out, or start a new run in another --out"
        raise ConfigError("--control needs settings that do not change during the run", got=got, fix=fix)
    if not 1 <= arguments.control <= MOST_SEEDS:
        raise ConfigError("--control is out of range", got=arguments.control, expected=f"1 to {MOST_SEEDS} seeds")
    if not arguments.validation_data and not arguments.validation_split:
        raise ConfigError("--control needs validation data, and there is none", fix="give --validation-split 0.1")
    if arguments.teacher_cache is not None:
        raise ConfigError(
            "--control needs the teacher itself, not a cache", fix="give --teacher instead of --teacher-cache"
        )
    if config.distill.cross_tokenizer != "refuse":
        got = f"cross_tokenizer={config.distill.cross_tokenizer}"
        raise ConfigError("--control needs a teacher with the student's tokenizer", got=got, fix="leave --control out")


def _sides(one: Evaluation) -> dict[str, str]:
    """Perplexities and agreements of one seed, formatted."""
    control, teacher = one["control"], one["teacher"]
    return {
        "student": figure("perplexity", one["perplexity"]),
        "control": figure("perplexity", control["perplexity"]),
        "teacher": figure("perplexity", teacher["perplexity"]),
        "student_agreement": figure("agreement", one["agreement"]),
        "control_agreement": figure("agreement", control["agreement"]),
    }


def overall(found: Sequence[Evaluation]) -> dict[str, Any]:
    """The share of the gap closed and its 95 % interval: over seeds (Student's t) if there are several, else over the
    documents (bootstrap)."""
    shares = [one["gap_closed"] for one in found if "gap_closed" in one]
    if not shares:
        return {}
    mean = statistics.fmean(shares)
    if len(shares) > 1:
        reach = T_95[len(shares) - 2] * statistics.stdev(shares) / len(shares) ** 0.5
        return {"gap_closed": mean, "interval": [mean - reach, mean + reach], "over": "seeds", "count": len(shares)}
    one = next(one for one in found if "gap_closed" in one)
    interval = one["intervals"].get("gap_closed")
    return {"gap_closed": mean, "interval": interval, "over": "documents", "count": one["documents"]}


def verdict(found: Sequence[Evaluation], say: Phrases) -> str | None:
    """One sentence on how much the teacher helped; None if there was no gap to close."""
    result = overall(found)
    if not result:
        return None
    closed = figure("gap_closed", abs(result["gap_closed"]))
    if result["gap_closed"] < 0:
        return say("control.worth_less", closed=closed)
    if result["interval"] is None:
        return say("control.worth_one", closed=closed)
    low, high = (figure("gap_closed", end) for end in result["interval"])
    over = say(f"control.over_{result['over']}", count=f"{result['count']:,}")
    return say("control.worth", closed=closed, low=low, high=high, over=over)
