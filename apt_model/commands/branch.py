"""`apt-model branch`: go on from a checkpoint of a run with other settings, as a run of its own."""

import argparse
import shlex
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from apt_model.commands.begun import Begun
from apt_model.commands.console import importing, print_line, program, speaker
from apt_model.commands.lesson import Lesson, demo_lesson, lesson_of, print_paths
from apt_model.commands.material import gather, prepare
from apt_model.commands.options import add_command, add_settings, given_settings
from apt_model.commands.set_aside import tell
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.runfile import check_run_directory
from apt_model.ranks.group import ranks

# Settings of a run that are no part of what it learns from: a branch begins without them.
OF_THE_MOMENT: Mapping[str, Any] = {"dashboard": False, "report_to": ()}


def add(commands: Any) -> None:
    """Add the parser."""
    summary = "go on from a checkpoint of a run with other settings, as a run of its own"
    branch = add_command(commands, "branch", _branch, summary, is_shared=True)
    branch.add_argument("run", metavar="RUN", help="run directory of the run to leave; nothing in it is changed")
    branch.add_argument(
        "--at", type=int, metavar="STEP", help="the step to branch at, of those with a checkpoint (default: the newest)"
    )
    branch.add_argument("--out", metavar="RUN", help="run directory of the branch (default: RUN-at-STEP)")
    branch.add_argument("--resume", action="store_true", help="continue the branch in --out from its newest checkpoint")
    add_settings(branch)


def _branch(arguments: argparse.Namespace) -> None:
    parent = Path(arguments.run)
    with ranks().agreed("read how the run was begun"):
        begun = Begun.read(parent)
        config = branch_settings(begun.settings, given_settings(arguments))
    with ranks().session(patience=config.train.rank_patience):
        _go_on(arguments, parent, begun, config)


def _go_on(arguments: argparse.Namespace, parent: Path, begun: Begun, config: LessonConfig) -> None:
    with ranks().agreed("find the checkpoint"):
        if arguments.resume and arguments.out is None:
            raise ConfigError("--resume does not know which branch", fix="give --out, the run directory of the branch")
        step = None if arguments.resume else _step_at(parent, arguments.at, config)
    named = arguments.out or ranks().of_first(lambda: _free(parent, step), "choose the run directory")
    out = Path(named)
    with ranks().agreed("open the run directory"):
        if ranks().is_first:
            check_run_directory(out, resumes=arguments.resume)
    lesson, student = _taught(begun, parent, config)
    begun.with_settings(config).keep(out)
    lesson.run(
        config,
        student,
        out,
        plain=begun.flags.get("plain", False),
        resume_from=out if arguments.resume else None,
        branch_from=None if arguments.resume else parent,
        branch_at=step,
    )
    print_paths(config, out)
    both = f"{program()} watch {shlex.quote(str(parent))} {shlex.quote(str(out))}"
    print_line(speaker(config.display.lang)("after.both", command=both))


def branch_settings(before: Mapping[str, Any], typed: Mapping[str, Any]) -> LessonConfig:
    """The parent's settings with those that were typed; typed epochs count more than the parent's `max_steps`.

    Raises:
        ConfigError: a setting is unknown, out of range, or contradicts another.
    """
    freed = {"max_steps": None} if "num_epochs" in typed and "max_steps" not in typed else {}
    return LessonConfig.from_layers({**before, **OF_THE_MOMENT, **freed}, typed)


def _step_at(parent: Path, step: int | None, config: LessonConfig) -> int:
    from apt_model.distill.checkpoints.branching import refuse_settings
    from apt_model.distill.checkpoints.finding import checkpoint_at
    from apt_model.storage import step_of

    checkpoint = checkpoint_at(parent, step)
    refuse_settings(checkpoint, config)
    return step_of(checkpoint)


def _free(parent: Path, step: int | None) -> str:
    """The first directory beside the parent that is not there: RUN-at-STEP, RUN-at-STEP-2 …"""
    name = f"{parent.resolve().name}-at-{step}"
    places = (parent.resolve().with_name(name if turn == 1 else f"{name}-{turn}") for turn in count(1))
    return _shown(next(place for place in places if not place.exists()))


def _shown(place: Path) -> str:
    """A path as one types it here."""
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)


def _taught(begun: Begun, parent: Path, config: LessonConfig) -> tuple[Lesson, Any]:
    """The parent's lesson with the settings of the branch, and its student before the first step."""
    if begun.command == "demo":
        return demo_lesson(str(begun.flags["lang"]), config)
    # As a run that resumes the parent: where that learned from all rows, none is set aside for validation now.
    arguments = argparse.Namespace(**begun.placed(), resume=True, out=str(parent))
    with importing(config.display.lang):
        prepare(config)
    material = gather(arguments, config)
    material.refuse_other_tokenizer(config)
    with ranks().first("tokenize the data"):
        rows, looked_at = material.tokenized(config)
    tell(material.told)
    return lesson_of(material, rows, looked_at, names=arguments.data), material.student
