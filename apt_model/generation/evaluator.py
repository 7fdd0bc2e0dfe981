"""How good a student is: on text that it reads, in answers that it gives, beside its teacher.

Knows which figures there are; knows nothing of how they are shown. `corpus_scores` goes over the data, `bootstrap`
says how sure a figure is, `answer_scores` judges answers, `speed` measures speed.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from apt_model.data.rng import undisturbed
from apt_model.errors import ConfigError
from apt_model.events.evaluation import Evaluation
from apt_model.generation.answer_scores import judge
from apt_model.generation.bootstrap import Interval, Numbers, ratio_interval, resampled_sums, safe_exp
from apt_model.generation.corpus_scores import CorpusScores
from apt_model.generation.speed import measure_inference
from apt_model.i18n import Phrases
from apt_model.models.devices import device_of, lent, pick_device
from apt_model.models.forward import model_card
from apt_model.models.modes import frozen

FIGURES: Mapping[str, tuple[str, str, Callable[[float], float]]] = {  # what is divided by what, and what then
    "loss": ("ce", "tokens", float),
    "perplexity": ("ce", "tokens", safe_exp),
    "bits_per_byte": ("ce", "bytes", lambda nats: nats / math.log(2)),
    "accuracy": ("correct", "tokens", float),
    "agreement": ("agreed", "tokens", float),
    "kl": ("kl", "tokens", float),
}


def evaluate_text_quality(
    model: nn.Module,
    dataloader: Iterable[Any],
    tokenizer: Any = None,
    teacher: nn.Module | None = None,
    *,
    control: nn.Module | None = None,
    device: str | torch.device | None = None,
    max_length: int = 512,
    max_new_tokens: int = 128,
    max_prompts: int | None = 200,
    resamples: int = 1000,
    seed: int = 0,
    speed: bool = False,
    lang: str = "zh",
) -> Evaluation:
    """Read the data once with the model (and its teacher), and say how well it does.

    On every document: `loss` (mean cross-entropy over the positions whose label is not -100, nats a token),
    `perplexity` (e to the loss), `bits_per_byte` (the same nats in bits, over the bytes that `spelling.scored_bytes`
    counts; not without a tokenizer), `accuracy` (the most likely token is the label). With a teacher: `agreement`
    (both find the same token most likely) and `kl` (KL(teacher ‖ student) at temperature 1, nats a token). Where rows
    have prompts (`training.encode.prompt_and_reference`): `chrf`, `bleu`, `distinct_1`, `distinct_2`, `repetition`
    of greedy answers (`wording.judge`). Of the model itself: `name`, `parameters`, `megabytes`. `documents`, `tokens`,
    `bytes` and `answers` count what was looked at.

    The models, their flags and devices, and all random generators are afterwards as they were.

    Args:
        model: maps token ids (B, L) to logits (B, L, V).
        dataloader: a DataLoader or any iterable; batches are what `training.batch.to_batch` takes.
        tokenizer: encodes text, decodes answers; batches of token ids need none.
        teacher: the same figures of it are under `teacher`.
        control: the same student, taught by labels alone; its figures are under `control`. With a teacher,
            `gap_closed` is the share of the loss between control and teacher that the student has made good; not
            there where the teacher is no better than the control.
        device: where to compute; where the model is, if None.
        max_length: tokens of a text at most; what is longer is cut. Prompts to be answered are not.
        max_new_tokens: length of an answer at most; 0 leaves the answers out.
        max_prompts: so many prompts are answered, the first ones, since that takes long; all of them, if None.
        resamples: of the documents, for the 95 % intervals under `intervals` (`bootstrap`).
        seed: of the resampling.
        speed: measure tokens a second and memory, too (`inference.measure_inference`).
        lang: language of `str()` of what is returned.

    Returns:
        A dict of plain numbers; a figure that could not be had is not in it, nor an interval of a single document.

    Raises:
        ConfigError: an argument out of its range, or prompts and no sacrebleu; before any work.
        DataError: no document with a label, a batch that a model cannot take, a prompt too long for it.
        ModelError: the model gives no logits, or cannot answer prompts.
        NumericError: logits are not finite; names the batch.
    """
    _refuse_below(2, max_length=max_length)
    _refuse_below(1, max_prompts=max_prompts)
    _refuse_below(100, resamples=resamples)
    _refuse_below(0, max_new_tokens=max_new_tokens)
    Phrases.load(lang)
    roles = {"student": model, "control": control, "teacher": teacher}
    models = {role: one for role, one in roles.items() if one is not None}
    place = device_of(model) or torch.device("cpu") if device is None else pick_device(str(device))
    with ExitStack() as kept:
        kept.enter_context(undisturbed(place))
        for one in models.values():
            kept.enter_context(frozen(one))
        scores = CorpusScores(
            models,
            tokenizer,
            {role: kept.enter_context(lent(one, place)) for role, one in models.items()},
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            max_prompts=max_prompts,
        )
        scores.read(dataloader)
        results = {role: _results(scores, role, resamples=resamples, seed=seed) for role in models}
        for role, one in models.items():
            card = model_card(one)
            results[role] |= {"name": card.name, "parameters": card.parameters, "megabytes": card.megabytes}
            results[role] |= measure_inference(one, place) if speed else {}
    evaluation = Evaluation(_counts(scores) | results["student"])
    evaluation |= {role: results[role] for role in models if role != "student"}
    if teacher is not None and control is not None:
        _add_gap_closed(evaluation, scores, resamples=resamples, seed=seed)
    evaluation.lang = lang
    return evaluation


def _results(scores: CorpusScores, role: str, *, resamples: int, seed: int) -> dict[str, Any]:
    """The figures of one model, and their intervals."""
    documents = scores.documents(role)
    values, intervals = _ratios(documents, resamples=resamples, seed=seed)
    results: dict[str, Any] = {**values}
    if scores.references:
        judged = judge(scores.answers[role], scores.references, resamples=resamples, seed=seed)
        results |= judged.values
        intervals |= judged.intervals
        results["signatures"] = judged.signatures
    results["intervals"] = {name: list(interval) for name, interval in intervals.items()}
    return results


def _add_gap_closed(evaluation: Evaluation, scores: CorpusScores, *, resamples: int, seed: int) -> None:
    """The share of the loss between control and teacher that the student has made good, over the same documents."""
    student, control, teacher = (scores.documents(role)["ce"] for role in ("student", "control", "teacher"))
    table = np.stack([control - student, control - teacher], axis=1)
    closed, gap = table.sum(axis=0)
    if gap <= 0:
        return
    evaluation["gap_closed"] = float(closed / gap)
    if len(table) > 1:
        samples = resampled_sums(table, resamples=resamples, seed=seed).T
        evaluation["intervals"]["gap_closed"] = list(ratio_interval(*samples))


def _ratios(
    documents: Mapping[str, Numbers], *, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, Interval]]:
    """The figures of `FIGURES` whose sums there are, and their intervals where there are several documents."""
    names = list(documents)
    table = np.stack([documents[name] for name in names], axis=1)
    totals = dict(zip(names, table.sum(axis=0), strict=True))
    samples = dict(zip(names, resampled_sums(table, resamples=resamples, seed=seed).T, strict=True))
    values: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for figure, (above, below, shape) in FIGURES.items():
        if totals.get(below) and above in totals:
            values[figure] = shape(float(totals[above] / totals[below]))
            if len(table) > 1:
                intervals[figure] = ratio_interval(samples[above], samples[below], shape)
    return values, intervals


def _counts(scores: CorpusScores) -> dict[str, int]:
    documents = scores.documents("student")
    counts = {"documents": len(documents["tokens"])}
    counts |= {name: int(documents[name].sum()) for name in ("tokens", "bytes") if name in documents}
    return counts | ({"answers": len(scores.references)} if scores.references else {})


def _refuse_below(least: int, **given: int | None) -> None:
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"{name} is out of range", got=repr(value), expected=f"a whole number, {least} or more")
