"""Bootstrap intervals against what is known of them without any bootstrap."""

import math
import random

import numpy as np
import pytest
import torch

from apt_model.generation import bootstrap
from apt_model.generation.bootstrap import middle, ratio_interval, resampled_sums, safe_exp


def test_a_resample_is_as_large_as_the_data_and_drawn_with_replacement() -> None:
    rows = np.eye(4)
    counts = resampled_sums(rows, resamples=4000, seed=0)
    assert counts.shape == (4000, 4)
    assert (counts.sum(axis=1) == 4).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(4), abs=0.06)  # each row is drawn once on average
    assert (counts == 0).mean() == pytest.approx((3 / 4) ** 4, abs=0.02)


def test_documents_that_are_all_alike_leave_no_doubt() -> None:
    above, below = resampled_sums(np.tile([6.0, 4.0], (50, 1)), resamples=200, seed=0).T
    assert ratio_interval(above, below) == (1.5, 1.5)
    assert ratio_interval(above, below, safe_exp) == (math.exp(1.5), math.exp(1.5))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).exponential(2.0, size=3000)
    rows = np.stack([values, np.ones(3000)], axis=1)
    low, high = ratio_interval(*resampled_sums(rows, resamples=4000, seed=2).T)
    half = 1.959964 * values.std() / math.sqrt(3000)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half * 2)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half * 2)


def test_the_interval_of_a_ratio_is_that_of_the_delta_method() -> None:
    """Variance of Σa/Σb over n documents: mean (a - r b)² / (n mean(b)²) (Cochran, Sampling Techniques, 1977, 6.4)."""
    generator = np.random.default_rng(3)
    tokens = generator.integers(5, 60, size=2000).astype(float)
    nats = tokens * generator.normal(3.0, 0.5, size=2000) + generator.normal(0, 8, size=2000)
    ratio = nats.sum() / tokens.sum()
    half = 1.959964 * math.sqrt(((nats - ratio * tokens) ** 2).mean() / 2000) / tokens.mean()
    low, high = ratio_interval(*resampled_sums(np.stack([nats, tokens], 1), resamples=4000, seed=4).T)
    assert (low, high) == (pytest.approx(ratio - half, abs=0.1 * half), pytest.approx(ratio + half, abs=0.1 * half))


def test_the_seed_alone_decides_and_no_global_generator_moves() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    rows = np.random.default_rng(0).normal(size=(20, 3))
    one, same, other = (resampled_sums(rows, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert not (one == other).all()
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_two_tables_of_the_same_documents_are_sampled_alike() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 2))
    assert (resampled_sums(rows, resamples=50, seed=1) * 2 == resampled_sums(2 * rows, resamples=50, seed=1)).all()


def test_how_many_are_drawn_together_does_not_show_in_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(9, size=(7, 2)).astype(float)
    whole = resampled_sums(rows, resamples=30, seed=1)
    monkeypatch.setattr(bootstrap, "DRAWN_TOGETHER", 21)
    assert (resampled_sums(rows, resamples=30, seed=1) == whole).all()


def test_a_resample_with_nothing_to_divide_by_says_nothing() -> None:
    assert ratio_interval(np.array([0.0, 1.0, 1.0]), np.array([0.0, 2.0, 2.0])) == (0.5, 0.5)


def test_quantiles_and_the_exponential_of_what_no_float_holds() -> None:
    assert middle(range(1001)) == (25.0, 975.0)
    assert safe_exp(2.0) == math.exp(2.0)
    assert safe_exp(1e4) == math.inf
