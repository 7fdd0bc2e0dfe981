"""Metrics of generated answers: chrF and BLEU against references, distinct-n, repetition.

Knows texts; knows nothing of models.

Sources: chrF, Popović, WMT 2015; BLEU, Papineni et al., ACL 2002, both by sacrebleu (Post, WMT 2018); distinct-n, Li et
al., NAACL 2016; repetition, the share of repeated 4-grams, Welleck et al., ICLR 2020 (seq-rep-4).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apt_model.errors import ConfigError
from apt_model.generation.bootstrap import Interval, middle, ratio_interval, resampled_sums

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_WORD = re.compile(r"[^\W\d_]+")
_PIECE = re.compile(r"\w+|[^\w\s]")
REPEATED = 4


def need_sacrebleu() -> Any:
    """Import sacrebleu.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        fix = "pip install 'apt-model[evaluate]', or leave the answers out with max_new_tokens=0"
        raise ConfigError("the data has prompts, and chrF and BLEU need sacrebleu", fix=fix) from error
    return sacrebleu


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Metrics of a set of answers: values by name, 95 % intervals over answers, sacrebleu's signatures."""

    values: dict[str, float]
    intervals: dict[str, Interval]
    signatures: dict[str, str]


def judge(answers: Sequence[str], references: Sequence[str], *, resamples: int, seed: int) -> Judgement:
    """Compute all metrics of answers, given one reference for each.

    chrF and BLEU are sacrebleu's, 0..100, BLEU with the tokenizer `zh` where the references are Chinese, else `13a`.
    distinct_1 and distinct_2 are the share of different n-grams among all n-grams of all answers; they fall as there
    are more answers, so compare models on the same prompts. repetition is the share of 4-grams that occurred earlier in
    the same answer. n-grams are over characters if the references are Chinese, else over words and punctuation marks,
    without spaces. distinct-n has no interval, since a resample contains duplicates and so has fewer different n-grams;
    a single answer has none at all.
    """
    chinese = is_chinese(references)
    judgement = _against(answers, references, chinese, resamples, seed)
    pieces = [units(text, chinese) for text in answers]
    for n in (1, 2):
        grams = [gram for text in pieces for gram in ngrams(text, n)]
        judgement.values[f"distinct_{n}"] = len(set(grams)) / max(len(grams), 1)
    repeats = np.array([_repeats(text) for text in pieces], dtype=np.float64)
    repeated, grams_in_all = repeats.sum(axis=0)
    judgement.values["repetition"] = float(repeated / max(grams_in_all, 1))
    if grams_in_all and len(answers) > 1:
        above, below = resampled_sums(repeats, resamples=resamples, seed=seed).T
        judgement.intervals["repetition"] = ratio_interval(above, below)
    return judgement


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether there are more Chinese characters than words of other letters."""
    chinese = sum(len(_CHINESE.findall(text)) for text in texts)
    others = sum(len(_WORD.findall(_CHINESE.sub(" ", text))) for text in texts)
    return chinese > others


def units(text: str, chinese: bool) -> list[str]:
    """Split a text into the units of n-grams: characters, or words and single punctuation marks; never spaces."""
    return [character for character in text if not character.isspace()] if chinese else _PIECE.findall(text)


def ngrams(pieces: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams of a sequence."""
    return list(zip(*(pieces[at:] for at in range(n)), strict=False))


def _repeats(pieces: Sequence[str]) -> tuple[int, int]:
    grams = ngrams(pieces, REPEATED)
    return len(grams) - len(set(grams)), len(grams)


def _against(answers: Sequence[str], references: Sequence[str], chinese: bool, resamples: int, seed: int) -> Judgement:
    """chrF and BLEU by sacrebleu, with our own bootstrap: sacrebleu's takes its seed from the environment."""
    sacrebleu = need_sacrebleu()
    values: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    signatures: dict[str, str] = {}
    metrics = {"chrf": sacrebleu.CHRF(), "bleu": sacrebleu.BLEU(tokenize="zh" if chinese else "13a")}
    for name, metric in metrics.items():
        values[name] = metric.corpus_score(answers, [references]).score
        signatures[name] = str(metric.get_signature())
        if len(answers) > 1:
            sums = np.array(metric._extract_corpus_statistics(answers, [references]), dtype=np.float64)
            samples = resampled_sums(sums, resamples=resamples, seed=seed)
            intervals[name] = middle([metric._compute_score_from_stats(list(sample)).score for sample in samples])
    return Judgement(values=values, intervals=intervals, signatures=signatures)
