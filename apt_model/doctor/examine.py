"""The doctor: what could go wrong with a lesson, looked at before its first step.

Looks at a few batches and lets both models read a few rows of them, without leaving a trace: weights, modes, random
generators and the data loader are afterwards as they were. Knows what is wrong; knows nothing of how it is told.
"""

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from apt_model.config import LessonConfig
from apt_model.data.batch import Batch
from apt_model.data.encode import differing_ids
from apt_model.data.rng import read_generators, set_generators, undisturbed
from apt_model.distill.checks import check_trainable, refuse_shared_weights
from apt_model.distill.out_of_memory import is_out_of_memory
from apt_model.doctor.data_checks import (
    look_at_lengths,
    look_at_masks,
    look_at_spans,
    look_at_tokenizers,
    read_batches,
)
from apt_model.doctor.memory import memory_free, memory_needed, readable, trained_bytes, weight_bytes
from apt_model.doctor.trial import TrialReading, read_trial, trial_batch
from apt_model.errors import AptModelError, NumericError, OutOfMemoryError, StorageError
from apt_model.events.checkup import Finding, wrong
from apt_model.models.devices import lent, pick_device
from apt_model.models.forward import Forward
from apt_model.models.modes import in_eval_mode

BATCHES = 4  # looked at
ALMOST_ZERO = 1e-4  # nats a token: far above rounding, far below anything there is to learn
KNOWS_NOTHING = 0.95  # of log V, the cross-entropy of a guess: at or above it, nothing has been learned yet
SLOW_TEMPERATURE = 4.0  # for a student that knows nothing: docs/log.md, "Why the demo uses temperature 1"
LEARNING_RATES = 1e-6, 1e-2  # of AdamW: outside, nothing moves or everything breaks


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
    """Look at a lesson that is about to begin.

    Args:
        student, teacher, batches, config, device, tokenizer: as `distill.loop.distill` will get them. Data that can
            be read only once is left alone; a teacher that is None has been cached, and the models' answers are not
            looked at.
        student_tokenizer: the student's own, if it has one, to be compared with the teacher's `tokenizer`. Where they
            differ and may, the models' answers are not looked at: they are in different tokens.
        run_dir: where checkpoints and student will go.

    Returns:
        What was found, in the order of looking. Nothing is raised for what is wrong with the lesson: the finding
        holds the error.
    """
    with undisturbed(device):
        raws = _peek(batches, device)
        ours, other = tokenizer if tokenizer is not None else student_tokenizer, None
        if config.distill.cross_tokenizer != "refuse" and None not in (tokenizer, student_tokenizer):
            other = tokenizer if differing_ids(tokenizer, student_tokenizer) else None
            ours = student_tokenizer
        found = [*look_at_tokenizers(tokenizer, student_tokenizer, may_differ=other is not None)]
        found += _look_at_models(student, teacher)
        read, broken = read_batches(raws, ours, config.train.max_length, teacher_tokenizer=other)
        found += [*broken, *(look_at_masks(read) if read else ()), *(look_at_spans(read) if other else ())]
        if not any(finding.error for finding in found):
            found += look_at_lengths(raws, ours, config.train.max_length)
            if teacher is not None and other is None:
                found += _look_at_answers(student, teacher, read, config, device, ours)
        found += _look_at_settings(config)
        if run_dir is not None:
            found += _look_at_disk(student, Path(run_dir), config.train.save_total_limit)
        return tuple(found)


def _peek(batches: Iterable[Any], device: torch.device) -> list[Any]:
    """The first batches, whoever shuffles them none the wiser."""
    if isinstance(batches, Iterator):
        return []
    plain, tensors = read_generators(device, batches)
    try:
        return list(islice(batches, BATCHES))
    finally:
        set_generators(plain, tensors, device, batches)


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


def _look_at_answers(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    config: LessonConfig,
    device: torch.device,
    tokenizer: Any,
) -> Iterator[Finding]:
    """Let both read a few rows; what they say tells of vocabularies, numbers, memory, and what there is to learn."""
    few = trial_batch(batches)
    if few is None:
        yield Finding(key="not_looked", state="advice")
        return
    try:
        place = pick_device(config.train.teacher_device) if config.train.teacher_device is not None else device
        forwards = Forward(student, "student"), Forward(teacher, "teacher")
        for batch in batches:
            for forward in forwards:
                forward.check(batch)
        with lent(student, device), lent(teacher, place), in_eval_mode(student), in_eval_mode(teacher):
            seen = read_trial(student, teacher, few, forwards=forwards, config=config, device=device)
            free = memory_free(device)
    except (AptModelError, RuntimeError, MemoryError) as error:
        if isinstance(error, AptModelError):
            yield wrong("refused", error)
            return
        if not is_out_of_memory(error):
            raise
        rows, length = few.input_ids.shape
        short = OutOfMemoryError(f"not even {rows} × {length} tokens fit into memory", fix="a smaller model")
        yield wrong("refused", short)
        return
    yield from _look_at_vocabulary(seen, tokenizer)
    yield from _look_at_numbers(seen, config)
    yield from _look_at_stops(student, tokenizer)
    yield from _look_at_positions(student, teacher, batches)
    need = memory_needed(
        student,
        teacher,
        tokens=max(batch.input_ids.numel() for batch in batches),
        width=max(seen.teacher_width, seen.student_width),
        kept_bytes=seen.kept_bytes,
        is_fused=seen.is_fused,
        config=config,
    )
    there = free + need.teacher + need.student  # which were there already when it was asked
    values = {"need": readable(need.total), "free": readable(there), **need.parts()}
    is_short = need.total > there
    yield Finding(key="memory_short" if is_short else "memory", state="advice" if is_short else "well", values=values)


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


def _look_at_numbers(seen: TrialReading, config: LessonConfig) -> Iterator[Finding]:
    if seen.not_numbers:
        roles = " and ".join(seen.not_numbers)
        error = NumericError(f"the logits of the {roles} are NaN or infinite", fix="look at its weights, or its dtype")
        yield wrong("not_numbers", error, roles=roles)
        return
    if abs(seen.own_kl) > ALMOST_ZERO:
        fix = "a model without chance in eval mode"
        error = NumericError("the student differs from itself", got=f"KL {seen.own_kl:.3g}", expected="0", fix=fix)
        yield wrong("own_kl_off", error, kl=f"{seen.own_kl:.3g}")
    else:
        yield Finding(key="own_kl", values={"kl": f"{max(seen.own_kl, 0.0):.1g}"})
    guess = math.log(min(seen.teacher_width, seen.student_width))
    values = {"ce": f"{seen.teacher_ce:.2f}", "guess": f"{guess:.2f}"}
    if seen.teacher_ce > guess:
        yield Finding(key="teacher_lost", state="advice", values=values)
    else:
        yield Finding(key="teacher_reads", values=values)
    if abs(seen.kl) < ALMOST_ZERO:
        yield Finding(key="nothing_to_learn", state="advice")
    elif seen.student_ce > KNOWS_NOTHING * guess and config.distill.temperature >= SLOW_TEMPERATURE:
        yield Finding(key="temperature_slow", state="advice", values={"temperature": config.distill.temperature})


def _look_at_stops(student: nn.Module, tokenizer: Any) -> Iterator[Finding]:
    """Whether the student, made to talk, will know the tokenizer's end of text."""
    ends = getattr(getattr(student, "generation_config", None), "eos_token_id", None)
    eos = getattr(tokenizer, "eos_token_id", None)
    known = [ends] if isinstance(ends, int) else list(ends or [])
    if eos is not None and known and eos not in known:
        values = {"model": ", ".join(map(str, known)), "tokenizer": eos}
        yield Finding(key="ends_differ", state="advice", values=values)


def _look_at_positions(student: nn.Module, teacher: nn.Module, batches: Sequence[Batch]) -> Iterator[Finding]:
    """More tokens than a model was made for; where it cannot take them at all, its `Forward` has said so."""
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
    """Room for the student and for checkpoints of weights and AdamW's moments: those kept, the best, a new one."""
    place = next(path for path in (run_dir.absolute(), *run_dir.absolute().parents) if path.exists())
    free, one = shutil.disk_usage(place).free, weight_bytes(student) + 2 * trained_bytes(student)
    need, least = weight_bytes(student) + (kept + 2) * one, weight_bytes(student) + one
    values = {"need": readable(need), "free": readable(free), "path": str(run_dir)}
    if free < least:
        got = f"{readable(free)} free, {readable(least)} needed for the student and one checkpoint"
        yield wrong("disk_full", StorageError(f"no room in {run_dir}", got=got, fix="make room"), **values)
    else:
        is_short = free < need
        yield Finding(key="disk_short" if is_short else "disk", state="advice" if is_short else "well", values=values)
