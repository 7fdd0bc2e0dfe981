"""Find a run's checkpoints: the newest intact one, that of a step, and what it was compared by. Changes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_model.errors import ConfigError, StorageError
from apt_model.events.runfile import EVENTS
from apt_model.storage import newest_snapshot, read_json, snapshots, step_of, unfinished_snapshots, why_damaged

CHECKPOINTS, STATE = "checkpoints", "state.json"
NEW_RUN = "start a new run in another directory"


def find_checkpoint(place: Path) -> tuple[Path | None, list[str]]:
    """A checkpoint to go on from, and why newer ones are left out.

    Args:
        place: a checkpoint, or a run directory whose newest intact one is taken; None if that has none yet.

    Raises:
        StorageError: the checkpoint is damaged, or none of them is intact.
    """
    if place.parent.name == CHECKPOINTS:
        reason = why_damaged(place)
        if reason is None:
            return place, []
        before = [path for path in snapshots(place.parent) if path.name < place.name and why_damaged(path) is None]
        fix = f"resume from {before[-1]}" if before else NEW_RUN
        raise StorageError(f"checkpoint {place} cannot be used", got=reason, fix=fix)
    found, skipped = newest_snapshot(place / CHECKPOINTS)
    if found is None and skipped:
        got = "; ".join(f"{one.path.name}: {one.reason}" for one in skipped)
        raise StorageError(f"no intact checkpoint in {place / CHECKPOINTS}", got=got, fix=NEW_RUN)
    told = [f"{one.path.name}: {one.reason}" for one in skipped]
    return found, told + [f"{path.name}: its save was broken off" for path in unfinished_snapshots(place / CHECKPOINTS)]


def checkpoint_at(run: Path, step: int | None) -> Path:
    """The checkpoint of a run after so many optimizer steps; None: the newest intact one.

    Raises:
        StorageError: there is no run, it cannot be read, or its checkpoint is damaged.
        ConfigError: it keeps no checkpoint of that step, and which it keeps.
    """
    if not (run / EVENTS).exists():
        raise StorageError(f"{run} holds no run to branch from", fix="check the path")
    kept = {step_of(path): path for path in snapshots(run / CHECKPOINTS)}
    if step is not None and kept and step not in kept:
        nearest = min(kept, key=lambda one: (abs(one - step), one))
        what = f"no checkpoint at step {step}; kept: {', '.join(map(str, kept))}"
        raise ConfigError(what, fix=f"branch at step {nearest}, the nearest")
    found, _ = find_checkpoint(run if step is None or not kept else kept[step])
    if found is None:
        fix = "branch a run that keeps some, as with --save-steps N --save-total-limit M"
        raise ConfigError(f"{run} keeps no checkpoint to branch from", fix=fix)
    return found


def saved_identity(run_dir: Path) -> Mapping[str, Any]:
    """The identity in a run's newest intact checkpoint; empty without one."""
    newest, _ = newest_snapshot(run_dir / CHECKPOINTS)
    try:
        return {} if newest is None else dict(read_json(newest / STATE)["identity"])
    except (OSError, LookupError, TypeError, ValueError):  # resuming will tell
        return {}
