"""Evaluate a student beside its teacher: loss, perplexity, bits per byte, agreement, KL, answer metrics, speed.

Knows which figures there are; knows nothing of how they are shown. `corpus_scores` goes over the data, `bootstrap`
makes intervals, `answer_scores` judges answers, `speed` measures inference.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from apt_model.data.notices import Tell, warn
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
from apt_model.models.out_of_memory import out_of_memory_told
from apt_model.ranks.group import Ranks, ranks
from apt_model.ranks.place import Place

FIGURES: Mapping[str, tuple[str, str, Callable[[float], float]]] = {  # sum above, sum below, function of their ratio
    "loss": ("ce", "tokens", float),
    "perplexity": ("ce", "tokens", safe_exp),
    "bits_per_byte": ("ce", "bytes", lambda nats: nats / math.log(2)),
    "accuracy": ("correct", "tokens", float),
    "agreement": ("agreed", "tokens", float),
    "kl": ("kl", "tokens", float),
}
REMEDY = "give smaller batches, a smaller max_length or max_new_tokens, or a smaller model"


@out_of_memory_told("the evaluation", REMEDY)
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
    tell: Tell = warn,
    is_shared: bool = False,
) -> Evaluation:
    """Evaluate a model, and its teacher if given, in one pass over the data.

    On all documents: `loss` (mean cross-entropy over the positions whose label is not -100, nats a token),
    `perplexity` (e to the loss), `bits_per_byte` (the same nats in bits, over the bytes that
    `byte_counts.scored_bytes` counts; not without a tokenizer), `accuracy` (the most likely token is the label). With a
    teacher: `agreement` (both find the same token most likely) and `kl` (KL(teacher ‖ student) at temperature 1, nats a
    token). For rows with prompts (`data.encode.prompt_and_reference`): `chrf`, `bleu`, `distinct_1`, `distinct_2`,
    `repetition` of greedy answers (`answer_scores.judge`). Of the model itself: `name`, `parameters`, `megabytes`.
    `documents`, `tokens`, `bytes` and `answers` count what was scored.

    The models, their flags and devices, and all random generators are afterwards as they were.

    Args:
        model: maps token ids (B, L) to logits (B, L, V).
        dataloader: a DataLoader or any iterable; batches are what `data.batch.to_batch` takes.
        tokenizer: encodes text, decodes answers; batches of token ids need none.
        teacher: the same figures of it are under `teacher`.
        control: the same student, trained on labels alone; its figures are under `control`. With a teacher,
            `gap_closed` is (control's loss − student's) / (control's loss − teacher's); left out if the teacher is no
            better than the control.
        device: where to compute; None: where the model is.
        max_length: tokens of a text at most; a longer one is truncated. Prompts to be answered are not.
        max_new_tokens: length of an answer at most; 0 leaves the answers out.
        max_prompts: the first so many prompts are answered, since that takes long; None: all of them.
        resamples: of the documents, for the 95 % intervals under `intervals` (`bootstrap`).
        seed: of the resampling.
        speed: measure tokens a second and memory, too (`speed.measure_inference`).
        lang: language of `str()` of the result.
        tell: told of what is not scored: the first row that is cut, columns that take no part.
        is_shared: every rank of a launcher calls this with the same data, and runs the models on its share of the
            batches; else this process does all of it.

    Returns:
        A dict of plain numbers, on every rank the same, but for the speed, which rank 0 alone measures; figures that
        cannot be computed are left out, and intervals of a single document.

    Raises:
        ConfigError: an argument out of its range, or prompts and no sacrebleu.
        DataError: no document with a label, a batch that a model cannot read, a prompt too long for it.
        ModelError: the model returns no logits, or has no `generate()` to answer prompts with.
        NumericError: logits are not finite; names the batch.
        OutOfMemoryError: the models, or what they make of a batch, do not fit.
    """
    _refuse_below(2, max_length=max_length)
    _refuse_below(1, max_prompts=max_prompts)
    _refuse_below(100, resamples=resamples)
    _refuse_below(0, max_new_tokens=max_new_tokens)
    Phrases.load(lang)
    roles = {"student": model, "control": control, "teacher": teacher}
    models = {role: one for role, one in roles.items() if one is not None}
    place = device_of(model) or torch.device("cpu") if device is None else pick_device(str(device))
    team = ranks() if is_shared else Ranks(Place(0, 1))
    team.at("validation")
    with _borrowed(models, place) as places:
        scores = CorpusScores(
            models,
            tokenizer,
            places,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            max_prompts=max_prompts,
            tell=tell,
        )
        scores.read(dataloader, team)
        results = {
            role: _results(scores, role, resamples=resamples, seed=seed) | _of_model(models[role]) for role in models
        }
        with team.agreed("measure the speed"):
            if speed and team.is_first:
                for role, one in models.items():
                    results[role] |= measure_inference(one, place)
    evaluation = Evaluation(_counts(scores) | results["student"])
    evaluation |= {role: results[role] for role in models if role != "student"}
    if teacher is not None and control is not None:
        _add_gap_closed(evaluation, scores, resamples=resamples, seed=seed)
    evaluation.lang = lang
    return evaluation


@contextmanager
def _borrowed(models: Mapping[str, nn.Module], place: torch.device) -> Iterator[dict[str, torch.device]]:
    """Context manager: all models are frozen, and on the device if they may be moved; yields where each takes input.

    Their flags and devices, and all random generators, are afterwards as they were.
    """
    with ExitStack() as kept:
        kept.enter_context(undisturbed(place))
        for one in models.values():
            kept.enter_context(frozen(one))
        yield {role: kept.enter_context(lent(one, place)) for role, one in models.items()}


def _of_model(model: nn.Module) -> dict[str, Any]:
    card = model_card(model)
    return {"name": card.name, "parameters": card.parameters, "megabytes": card.megabytes}


def _results(scores: CorpusScores, role: str, *, resamples: int, seed: int) -> dict[str, Any]:
    """All figures of one model, with their intervals."""
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
    """The share of the loss gap between control and teacher that the student has closed, over the same documents."""
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
    """The figures of `FIGURES` whose sums are known, and their intervals if there are several documents."""
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
