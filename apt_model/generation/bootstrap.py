"""Bootstrap confidence intervals (95 %, percentile method) over documents. Knows numbers only.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13 (percentile intervals); Koehn,
Statistical Significance Tests for Machine Translation Evaluation, EMNLP 2004, for figures of a whole corpus.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Interval = tuple[float, float]

DRAWN_TOGETHER = 2**20  # rows drawn at a time: 8 MB of indices, however many resamples there are


def resampled_sums(rows: Numbers, *, resamples: int, seed: int) -> Numbers:
    """Column sums of `resamples` samples of the rows, drawn with replacement, each as large as the data.

    Shapes: rows (n, k); returns (resamples, k). The same seed and n draw the same rows, so two tables of the same
    documents are sampled alike. Uses a generator of its own: global ones are not touched.
    """
    generator = np.random.default_rng(seed)
    count = len(rows)
    sums = [_counts(generator, count, some) @ rows for some in _portions(resamples, max(1, DRAWN_TOGETHER // count))]
    return np.concatenate(sums)


def ratio_interval(above: Numbers, below: Numbers, shape: Callable[[float], float] = float) -> Interval:
    """95 % interval of `shape(above / below)` over resamples; a resample whose `below` is 0 is left out.

    Shapes: above and below (resamples). `shape` must be increasing.
    """
    defined = below > 0
    return middle(above[defined] / below[defined], shape)


def middle(values: Iterable[float] | Numbers, shape: Callable[[float], float] = float) -> Interval:
    """`shape` of the 2.5 % and of the 97.5 % quantile of `values`."""
    low, high = np.quantile(np.asarray(values, dtype=np.float64), (0.025, 0.975))
    return shape(float(low)), shape(float(high))


def safe_exp(value: float) -> float:
    """e to the `value`; infinity from 700 on, close to the end of a float's range."""
    return math.exp(value) if value < 700 else math.inf


def _counts(generator: np.random.Generator, count: int, resamples: int) -> Numbers:
    """How often each row was drawn, (resamples, count)."""
    drawn = generator.integers(count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float64)


def _portions(total: int, most: int) -> Iterator[int]:
    for at in range(0, total, most):
        yield min(most, total - at)
