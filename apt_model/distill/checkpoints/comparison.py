"""Compare a run with the checkpoint that it resumes from: identity, beginning, machine, length.

Knows how two of them differ, in words; knows nothing of what a checkpoint's files hold besides.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from apt_model.config import settings
from apt_model.config.sections import TrainConfig
from apt_model.data.notices import KeyedNotice
from apt_model.data.rows import is_stateless
from apt_model.distill.checkpoints.progress import Progress
from apt_model.errors import ConfigError
from apt_model.models.weights import weights_of

ANYWAY = "allow the difference with resume_anyway (--resume-anyway)"
# Entries of an identity that other surroundings may change: the first weights, which a checkpoint replaces, have other
# last bits where a student is cut by calibration on another machine; another version of a library describes the rest
# otherwise.
BEGINNING = "the student's first weights"
DESCRIBED = ("the student's build", "the teacher's build", "tokenizer", "the teacher's tokenizer")
OF_ROWS = ("batches", "data", "order of data", "sampler")
LIBRARIES = ("torch", "transformers", "tokenizers")


def compared(
    then: Mapping[str, Any], now: Mapping[str, Any], *, may_differ: bool, excused: Iterable[str] = ()
) -> list[KeyedNotice]:
    """Compare the identity of a checkpoint with that of the run; returns what to tell of differences that may be.

    Raises:
        ConfigError: they differ, and may not: lists how.
    """
    differ = "; ".join(differences(then, {**now, **{name: then.get(name) for name in excused}}))
    if differ and not may_differ:
        fix = f"resume with the same values, or {ANYWAY}"
        raise ConfigError("the run differs from that of the checkpoint", got=differ, fix=fix)
    return [("notice.resumed_anyway", {"what": differ})] if differ else []


def refuse_other_batches(then: str, now: str, batches: int) -> None:
    """Refuse an epoch whose first batches have another hash than those that the checkpoint's run was trained on.

    Raises:
        ConfigError: they have.
    """
    if then != now:
        what = f"the data has changed since the checkpoint: the epoch's first {batches} batches differ"
        raise ConfigError(what, fix=f"resume with the same data in the same order, or {ANYWAY}")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two identities differs, in words: "temperature: 4.0 then, 2.0 now".

    A setting that is not in the earlier one had its default value: settings grow in number. Where rows are others, that
    their order is another one goes without saying.
    """
    return [f"{name}: {before} then, {after} now" for name, (before, after) in differing(then, now).items()]


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values of each entry in which two identities differ, as `differences` counts them."""
    then = {**{key: field.default for _, key, field in settings() if key in now}, **then}
    differ = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    implied = {f"order of {name}" for name in differ}
    return {name: (then.get(name), now.get(name)) for name in differ if name not in implied}


def holds_weights(student: nn.Module, path: Path) -> bool:
    """Whether a student has the weights in a checkpoint's file, as a stopped run leaves it in memory."""
    own = weights_of(student)
    try:
        saved = load_file(path)
    except (OSError, SafetensorError):  # restoring will tell
        return False
    return all(name in own and _are_equal(own[name], tensor) for name, tensor in saved.items())


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; a shard is not compared, since no process has the whole."""
    return not isinstance(one, DTensor) and one.dtype == other.dtype and torch.equal(one.cpu(), other)


def excused_by(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Entries of an identity that may differ because these surroundings do."""
    if then == now:
        return ()
    is_other_library = any(then.get(name) != now.get(name) for name in LIBRARIES)
    return (BEGINNING, *DESCRIBED) if is_other_library else (BEGINNING,)


def told_of_workers(loader: Any, progress: Progress) -> list[KeyedNotice]:
    """What to tell of loader workers that had lived on from an earlier epoch: their generators died with them."""
    lived_on = progress.has_left_an_epoch and getattr(loader, "persistent_workers", False)
    return [("notice.resumed_workers", {})] if lived_on and not is_stateless(loader.dataset) else []


def refuse_other_ranks(
    newest: Sequence[str | None], identities: Sequence[Mapping[str, Any]], *, is_divided: bool
) -> None:
    """Refuse ranks that see other checkpoints than rank 0, or were given other models, settings or rows.

    Args:
        newest: by rank, the name of the checkpoint that it would resume from.
        identities: by rank.
        is_divided: the caller gave each rank rows of its own.

    Raises:
        ConfigError: names the rank and what differs.
    """
    own = {"keeps", *(OF_ROWS if is_divided else ())}  # what rank 0 alone has, or each its own
    for number, (name, identity) in enumerate(zip(newest, identities, strict=True)):
        if name != newest[0]:
            what, fix = f"rank {number} sees another newest checkpoint than rank 0", "give all ranks one run directory"
            raise ConfigError(what, got=str(name), expected=str(newest[0]), fix=fix)
        first = identities[0]
        differ = [key for key in identity if key not in own and identity[key] != first.get(key)]
        if differ:
            got = "; ".join(f"{key}: {first.get(key)} on rank 0, {identity[key]} on rank {number}" for key in differ)
            fix = "give all ranks the same models, settings and data"
            raise ConfigError(f"rank {number} was given something else than rank 0", got=got, fix=fix)


def refuse_past_the_end(config: TrainConfig, progress: Progress) -> None:
    """Refuse a checkpoint that is past the end of the run.

    Raises:
        ConfigError: names the setting, and both numbers.
    """
    name, done = ("num_epochs", progress.epoch) if config.max_steps is None else ("max_steps", progress.step)
    end = getattr(config, name)
    if done > end:
        fix = f"set {name} to {done} or more, or resume from an earlier checkpoint"
        what = "the checkpoint is past the end of the run"
        raise ConfigError(what, got=f"{done}", expected=f"{name} {end} at most", fix=fix)
