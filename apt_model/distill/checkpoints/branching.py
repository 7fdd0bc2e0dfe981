"""A branch: a run that goes on from another run's checkpoint, with settings of its own.

Knows which checkpoints there are, and what may change in mid-run; knows nothing of what a checkpoint's files hold.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from apt_model.config import LessonConfig, settings
from apt_model.config.sections import TrainConfig
from apt_model.data.notices import KeyedNotice
from apt_model.distill.checkpoints.comparison import BEGINNING, differing
from apt_model.distill.checkpoints.finding import STATE
from apt_model.distill.checkpoints.progress import Progress
from apt_model.distill.checkpoints.run_state import RunState
from apt_model.errors import ConfigError, StorageError, reason_of
from apt_model.events.recorded import name_of
from apt_model.events.records import Branch, ChangedSetting, Notice
from apt_model.storage import MANIFEST, Writer, json_writer, read_json, step_of, write_snapshot

# Settings that have been at work before any checkpoint, by why they cannot change any more.
FIXED = {
    "max_length": "the rows would be cut elsewhere than those learned so far",
    "cross_tokenizer": "the batches would be others than those learned so far",
    "gradient_accumulation_steps": "steps would be longer or shorter than those counted so far",
    "seed": "random numbers go on from the checkpoint; a seed sets their beginning only",
}
SWITCHES = ("hidden_weight", "layer_map")  # of projections, which are trained from the first step on


def branch_of(
    checkpoint: Path, state: Mapping[str, Any], now: Mapping[str, Any], *, excused: Sequence[str], has_beside: bool
) -> Branch:
    """What a branch tells of its parent, and of what it changes.

    Args:
        checkpoint: of the parent.
        state: of the checkpoint.
        now: the identity of the branch.
        excused: entries of an identity that may differ because the machine does.
        has_beside: whether projections are trained with the student.

    Raises:
        ConfigError: something differs that cannot change in mid-run: names it, and why.
    """
    then = {**state["identity"], BEGINNING: now.get(BEGINNING)}
    now = {**now, **{name: then.get(name) for name in excused}}
    changed = differing(then, now)
    _refuse_fixed(changed, has_beside=has_beside)
    return Branch(
        run=name_of(checkpoint.absolute().parent.parent),
        run_id=str(state["others"].get("report", {}).get("run_id", "")),
        step=step_of(checkpoint),
        changed=tuple(ChangedSetting(setting=name, before=one, after=other) for name, (one, other) in changed.items()),
    )


def refuse_settings(checkpoint: Path, config: LessonConfig) -> None:
    """Refuse, before anything is loaded, settings that cannot change in mid-run, and an end that is reached already.

    Raises:
        ConfigError: names the setting. StorageError: the checkpoint cannot be read.
    """
    try:
        state, done = read_json(checkpoint / STATE), Progress()
        done.load_state_dict(state["progress"])
        then = {key: state["identity"][key] for _, key, _ in settings() if key in state["identity"]}
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise StorageError(f"checkpoint {checkpoint} cannot be read", got=reason_of(error)) from error
    now = config.to_dict()
    _refuse_fixed(differing(then, {key: now[key] for key in then}), has_beside=False)
    refuse_no_future(done, config.train)


def _refuse_fixed(changed: Mapping[str, tuple[Any, Any]], *, has_beside: bool) -> None:
    keys = {key for _, key, _ in settings()}
    wrong = [
        f"{name}: {before} then, {after} now ({why})"
        for name, (before, after) in changed.items()
        if (why := _why_fixed(name, keys, (before, after), has_beside)) is not None
    ]
    if wrong:
        fix = "leave it as it was, or start a new run"
        raise ConfigError("a branch cannot change this in mid-run", got="; ".join(wrong), fix=fix)


def told_of_branch(branch: Branch) -> KeyedNotice:
    """Where a branch comes from, and what it changes."""
    changed = ", ".join(f"{one.setting} {one.before} → {one.after}" for one in branch.changed)
    place: dict[str, str | int | float] = {"run": branch.run, "step": branch.step}
    return ("notice.branched", {**place, "changed": changed}) if changed else ("notice.branch_unchanged", place)


def _why_fixed(name: str, keys: set[str], values: tuple[Any, Any], has_beside: bool) -> str | None:
    """Why an entry of an identity cannot change in mid-run; None if it can."""
    if name not in keys:
        return "models, data and optimizer stay"
    if name == "mixed_precision" and "fp16" in values:
        return "fp16 has a loss scale that grows from the first step on"
    if name in SWITCHES and has_beside and (name == "layer_map" or 0 in values):
        return "the projections between layers are trained from the first step on"
    return FIXED.get(name)


def refuse_no_future(progress: Progress, config: TrainConfig) -> None:
    """Refuse a branch that would have nothing left to train.

    Raises:
        ConfigError: the checkpoint is at the end of the run, or past it.
    """
    name, end = ("num_epochs", config.num_epochs) if config.max_steps is None else ("max_steps", config.max_steps)
    done = progress.epoch if config.max_steps is None else progress.step
    if done > end or (done == end and (progress.finished or config.max_steps is not None)):
        what = f"nothing is left to train after step {progress.step}"
        raise ConfigError(what, got=f"{name} {end}", fix=f"branch from an earlier step, or set {name} to {done + 1}")


def keep_beginning(
    folder: Path, checkpoint: Path, run: RunState, *, best: tuple[float, int] | None, tell: Callable[..., Any]
) -> None:
    """Copy the checkpoint that a branch was restored from, with the branch's own identity and place in its record.

    Args:
        folder: the branch's checkpoints.
        checkpoint: of the parent.
        run: the branch, restored.
        best: score and step of its best checkpoint.
        tell: tells, before that, if its learning rate is another one from here on.

    Raises:
        StorageError: a file cannot be read or written.
    """
    try:
        state = read_json(checkpoint / STATE)
        files = [path for path in checkpoint.iterdir() if path.name not in (STATE, MANIFEST)]
        size = sum(path.stat().st_size for path in files)
        before, after = state["optimizer"]["groups"][0]["lr"], run.optimizer.param_groups[0]["lr"]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise StorageError(f"checkpoint {checkpoint} cannot be read", got=reason_of(error)) from error
    if before != after:
        tell(
            Notice,
            key="notice.branch_rate",
            values={"step": run.progress.step, "before": f"{before:.3g}", "after": f"{after:.3g}"},
        )
    others = {name: one.state_dict() for name, one in run.others.items()}
    own = json_writer({**state, "identity": dict(run.identity), "others": others, "best": best})
    copies: dict[str, Writer] = {path.name: partial(_copy, path) for path in files}
    write_snapshot(folder, run.progress.step, {**copies, STATE: own}, about_bytes=size)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
