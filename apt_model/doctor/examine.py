"""Run all pre-flight checks of a distillation run on a few batches and a trial forward pass of both models.

Leaves no trace: weights, modes, random generators and the DataLoader are afterwards as they were. Knows what is wrong;
knows nothing of how findings are shown.
"""

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from apt_model.config import LessonConfig
from apt_model.data.batch import Batch
from apt_model.data.data_state import left_as_it_was
from apt_model.data.encode import differing_ids
from apt_model.data.rng import undisturbed
from apt_model.distill.checks import check_trainable, refuse_seeing_ahead, refuse_shared_weights
from apt_model.doctor.data_checks import (
    look_at_answers,
    look_at_lengths,
    look_at_masks,
    look_at_spans,
    look_at_tokenizers,
    read_batches,
    unigram_cross_entropy,
)
from apt_model.doctor.memory import memory_free, memory_needed, trained_bytes, weight_bytes
from apt_model.doctor.need import readable
from apt_model.doctor.trial import TrialReading, read_trial, trial_batch
from apt_model.errors import AptModelError, NumericError, OutOfMemoryError, StorageError
from apt_model.events.checkup import Finding, wrong
from apt_model.models.devices import lent, pick_device
from apt_model.models.forward import Forward
from apt_model.models.modes import in_eval_mode
from apt_model.models.out_of_memory import is_out_of_memory

BATCHES = 4  # that are checked
ALMOST_ZERO = 1e-4  # nats a token: far above rounding errors, far below any KL worth learning
KNOWS_NOTHING = 0.95  # of log V, the cross-entropy of a uniform guess: at or above it the student is untrained
SLOW_TEMPERATURE = 4.0  # for an untrained student: docs/log.md, "Why the demo uses temperature 1"
LEARNING_RATES = 1e-6, 1e-2  # usual for AdamW: below, weights hardly change; above, training diverges


def examine(
    *,
    student: nn.Module,
    teacher: nn.Module | None,
    batches: Iterable[Any],
    config: LessonConfig,
    device: torch.device,
    tokenizer: Any = None,
    student_tokenizer: Any = None,
    run_dir: str | Path | None = None,
) -> tuple[Finding, ...]:
    """Check a run that is about to begin.

    Args:
        student, teacher, batches, config, device, tokenizer: as `distill.loop.distill` will get them. Of an iterator,
            which can be read only once, no batch is taken. A cached teacher is passed as None, and then the student is
            only asked whether it is causal.
        student_tokenizer: the student's, if it has one, to be compared with the teacher's `tokenizer`. If they differ
            and `cross_tokenizer` allows it, both models are only asked whether they are causal: their logits cannot be
            compared column by column.
        run_dir: where checkpoints and student will go.

    Returns:
        The findings, in the order of the checks. What is wrong with the run is not raised: its finding holds the error.
    """
    with undisturbed(device):
        raws = _peek(batches, device)
        encoder, other = _encoders(config, tokenizer, student_tokenizer)
        found = [*look_at_tokenizers(tokenizer, student_tokenizer, may_differ=other is not None)]
        found += _look_at_models(student, teacher)
        read, broken = read_batches(raws, encoder, config.train.max_length, teacher_tokenizer=other)
        found += [*broken, *(look_at_masks(read) if read else ()), *(look_at_spans(read) if other else ())]
        if not any(finding.error for finding in found):
            found += look_at_answers(raws, encoder, config.train.max_length)
            found += look_at_lengths(raws, encoder, config.train.max_length)
            look = _look_at_answers(student, teacher, read, config, device, encoder, crosses=other is not None)
            found += _until_refused(look)
        found += _look_at_settings(config)
        if run_dir is not None:
            found += _look_at_disk(student, Path(run_dir), config.train.save_total_limit)
        return tuple(found)


def _encoders(config: LessonConfig, tokenizer: Any, student_tokenizer: Any) -> tuple[Any, Any]:
    """The tokenizer that encodes the data, and the teacher's if it differs and may."""
    if config.distill.cross_tokenizer != "refuse" and None not in (tokenizer, student_tokenizer):
        return student_tokenizer, tokenizer if differing_ids(tokenizer, student_tokenizer) else None
    return tokenizer if tokenizer is not None else student_tokenizer, None


def _peek(batches: Iterable[Any], device: torch.device) -> list[Any]:
    """The first batches; generators and what the loader holds are afterwards as they were."""
    if isinstance(batches, Iterator):
        return []
    with undisturbed(device), left_as_it_was(batches):
        return list(islice(batches, BATCHES))


def _look_at_models(student: nn.Module, teacher: nn.Module | None) -> Iterator[Finding]:
    try:
        if teacher is not None:
            refuse_shared_weights(student, teacher)
        check_trainable(student, None)
    except AptModelError as error:
        yield wrong("refused", error)
        return
    if teacher is None:
        yield Finding(key="teacher_cached")
        return
    sizes = [sum(p.numel() for p in model.parameters()) for model in (teacher, student)]
    share = f"{100 * sizes[1] / max(sizes[0], 1):.0f}%"
    yield Finding(key="models", values={"teacher": f"{sizes[0]:,}", "student": f"{sizes[1]:,}", "share": share})


def _until_refused(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of models that are run, until one is refused, or does not fit into memory."""
    try:
        yield from findings
    except (AptModelError, RuntimeError, MemoryError) as error:
        if isinstance(error, AptModelError):
            yield wrong("refused", error)
            return
        if not is_out_of_memory(error):
            raise
        yield wrong("refused", OutOfMemoryError("even a few rows do not fit into memory", fix="a smaller model"))


def _look_at_answers(
    student: nn.Module,
    teacher: nn.Module | None,
    batches: Sequence[Batch],
    config: LessonConfig,
    device: torch.device,
    tokenizer: Any,
    *,
    crosses: bool,
) -> Iterator[Finding]:
    """Run the models on a few rows, and check causality, vocabularies, finite logits, KL, cross-entropy and memory.

    Raises:
        AptModelError: a model is refused. RuntimeError, MemoryError: out of memory.
    """
    few = trial_batch(batches)
    if few is None:
        yield Finding(key="not_looked", state="advice")
        return
    place = pick_device(config.train.teacher_device) if config.train.teacher_device is not None else device
    models = {"student": student} if teacher is None else {"teacher": teacher, "student": student}
    forwards = {role: Forward(model, role) for role, model in models.items()}
    for batch in batches:
        for role, forward in forwards.items():
            forward.check(batch.for_teacher if role == "teacher" else batch)
    with lent(student, device), lent(teacher, place) if teacher is not None else nullcontext():
        if refuse_seeing_ahead(models, batches, device, "no"):
            yield Finding(key="causal")
        if teacher is None or crosses:
            return
        with in_eval_mode(student), in_eval_mode(teacher):
            both = forwards["student"], forwards["teacher"]
            seen = read_trial(student, teacher, few, forwards=both, config=config, device=device)
            free = memory_free(device)
    yield from _look_at_vocabulary(seen, tokenizer)
    yield from _look_at_numbers(seen, config, unigram_cross_entropy(batches, seen.teacher_width))
    yield from _look_at_stops(student, tokenizer)
    yield from _look_at_positions(student, teacher, batches)
    yield _look_at_memory(student, teacher, batches, seen, config, free=free)


def _look_at_memory(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    seen: TrialReading,
    config: LessonConfig,
    *,
    free: int,
) -> Finding:
    """Compare the memory that a step needs with that which was free beside both models."""
    need = memory_needed(
        student,
        teacher,
        tokens=max(batch.input_ids.numel() for batch in batches),
        seen=seen,
        config=config,
    )
    there = free + need.teacher + need.student  # which were there already when it was asked
    values = {"need": readable(need.total), "free": readable(there), **need.parts()}
    is_short = need.total > there
    return Finding(key="memory_short" if is_short else "memory", state="advice" if is_short else "well", values=values)


def _look_at_vocabulary(seen: TrialReading, tokenizer: Any) -> Iterator[Finding]:
    known = len(tokenizer) if hasattr(tokenizer, "__len__") else None
    shared = min(seen.teacher_width, seen.student_width)
    values = {"teacher": seen.teacher_width, "student": seen.student_width, "shared": shared, "known": known or shared}
    if known is not None and known > shared:
        yield Finding(key="vocabulary_short", state="advice", values=values)
    elif seen.teacher_width != seen.student_width:
        yield Finding(key="vocabulary_padded", state="advice", values=values)
    else:
        yield Finding(key="vocabulary", values=values)


def _look_at_numbers(seen: TrialReading, config: LessonConfig, unigram: float | None) -> Iterator[Finding]:
    if seen.not_numbers:
        roles = " and ".join(seen.not_numbers)
        error = NumericError(f"the logits of the {roles} are NaN or infinite", fix="check its weights and its dtype")
        yield wrong("not_numbers", error, roles=roles)
        return
    if abs(seen.own_kl) > ALMOST_ZERO:
        fix = "use a model that is deterministic in eval mode"
        what = "two forward passes of the student differ"
        error = NumericError(what, got=f"KL {seen.own_kl:.3g}", expected="0", fix=fix)
        yield wrong("own_kl_off", error, kl=f"{seen.own_kl:.3g}")
    else:
        yield Finding(key="own_kl", values={"kl": f"{max(seen.own_kl, 0.0):.1g}"})
    guess = math.log(min(seen.teacher_width, seen.student_width))
    values = {"ce": f"{seen.teacher_ce:.2f}", "guess": f"{guess:.2f}"}
    if seen.teacher_ce > guess:
        yield Finding(key="teacher_lost", state="advice", values=values)
    else:
        yield Finding(key="teacher_reads", values=values)
        if unigram is not None and seen.teacher_ce > unigram:
            yield Finding(key="teacher_unsuited", state="advice", values={**values, "unigram": f"{unigram:.2f}"})
    if abs(seen.kl) < ALMOST_ZERO:
        yield Finding(key="nothing_to_learn", state="advice")
    elif seen.student_ce > KNOWS_NOTHING * guess and config.distill.temperature >= SLOW_TEMPERATURE:
        temperature, rate = config.distill.temperature, f"{config.train.learning_rate:g}"
        yield Finding(key="temperature_slow", state="advice", values={"temperature": temperature, "rate": rate})


def _look_at_stops(student: nn.Module, tokenizer: Any) -> Iterator[Finding]:
    """Whether the student's `generation_config` stops at the tokenizer's EOS token."""
    ends = getattr(getattr(student, "generation_config", None), "eos_token_id", None)
    eos = getattr(tokenizer, "eos_token_id", None)
    known = [ends] if isinstance(ends, int) else list(ends or [])
    if eos is not None and known and eos not in known:
        values = {"model": ", ".join(map(str, known)), "tokenizer": eos}
        yield Finding(key="ends_differ", state="advice", values=values)


def _look_at_positions(student: nn.Module, teacher: nn.Module, batches: Sequence[Batch]) -> Iterator[Finding]:
    """Rows longer than `max_position_embeddings`; a model with a hard limit was refused by `Forward.check`."""
    longest = max(batch.input_ids.shape[1] for batch in batches)
    limits = [getattr(getattr(one, "config", None), "max_position_embeddings", None) for one in (teacher, student)]
    known = [limit for limit in limits if isinstance(limit, int)]
    if known and longest > min(known):
        yield Finding(key="positions", state="advice", values={"longest": longest, "limit": min(known)})


def _look_at_settings(config: LessonConfig) -> Iterator[Finding]:
    lowest, highest = LEARNING_RATES
    rate = config.train.learning_rate
    if not lowest <= rate <= highest:
        key = "learning_rate_low" if rate < lowest else "learning_rate_high"
        yield Finding(key=key, state="advice", values={"rate": f"{rate:g}"})


def _look_at_disk(student: nn.Module, run_dir: Path, kept: int) -> Iterator[Finding]:
    """Disk space for the student and checkpoints of weights and AdamW's moments: those kept, the best, a new one."""
    place = next(path for path in (run_dir.absolute(), *run_dir.absolute().parents) if path.exists())
    free, one = shutil.disk_usage(place).free, weight_bytes(student) + 2 * trained_bytes(student)
    need, least = weight_bytes(student) + (kept + 2) * one, weight_bytes(student) + one
    values = {"need": readable(need), "free": readable(free), "path": str(run_dir)}
    if free < least:
        got = f"{readable(free)} free, {readable(least)} needed for the student and one checkpoint"
        error = StorageError(f"too little space for {run_dir}", got=got, fix="free some space")
        yield wrong("disk_full", error, **values)
    else:
        is_short = free < need
        yield Finding(key="disk_short" if is_short else "disk", state="advice" if is_short else "well", values=values)
