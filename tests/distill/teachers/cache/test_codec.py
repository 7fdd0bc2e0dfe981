"""What is packed comes out again: ids and argmax exactly, values as near as is promised."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apt_model.distill.teachers.cache.codec import Packing, StoredTopK, ValueType, concatenate
from apt_model.distill.teachers.cache.topk import keep_top_k


def example(positions: int, vocabulary: int, k: int, seed: int = 0, ruled_out: bool = False) -> StoredTopK:
    random = np.random.default_rng(seed)
    ids = np.stack([random.permutation(vocabulary)[:k] for _ in range(positions)]).astype(np.int64)
    gaps = np.sort(random.gamma(2.0, 4.0, (positions, k)).astype(np.float32), axis=1)
    gaps -= gaps[:, :1]
    if ruled_out:
        gaps[:, 1:][:, -1:] = np.inf
    return StoredTopK(ids=ids, gaps=gaps, tails=-random.gamma(1.0, 3.0, (positions, 2)).astype(np.float32))


def by_id(rows: StoredTopK) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(rows.ids, axis=1)
    return np.take_along_axis(rows.ids, order, 1), np.take_along_axis(rows.gaps, order, 1)


@given(
    positions=st.integers(1, 20),
    vocabulary=st.sampled_from([2, 7, 255, 256, 257, 70_000]),
    k=st.integers(1, 7),
    seed=st.integers(0, 100),
    ruled_out=st.booleans(),
    value_type=st.sampled_from(["log8", "float16"]),
)
def test_ids_and_argmax_come_back_exactly_and_gaps_nearly(
    positions: int, vocabulary: int, k: int, seed: int, ruled_out: bool, value_type: ValueType
) -> None:
    rows = example(positions, vocabulary, min(k, vocabulary), seed, ruled_out)
    order = np.random.default_rng(seed).permutation(vocabulary).astype(np.int64)
    packing = Packing(order=order, k=min(k, vocabulary), value_type=value_type)
    again = packing.unpack(packing.pack(rows))
    (ids, gaps), (ids_again, gaps_again) = by_id(rows), by_id(again)
    np.testing.assert_array_equal(ids, ids_again)
    np.testing.assert_array_equal(gaps.argmin(1), gaps_again.argmin(1))
    assert ((gaps_again == 0).sum(1) == 1).all()
    np.testing.assert_array_equal(np.isinf(gaps), np.isinf(gaps_again))
    finite = np.isfinite(gaps)
    # log8: half a step of (gap + 1/2) / 32, or a whole one for what would come too near the argmax; float16: 11 bits
    allowed = (0.5 + gaps[finite]) / 32 * 1.05 if value_type == "log8" else 1e-6 + gaps[finite] * 2.0**-10
    assert (np.abs(gaps[finite] - gaps_again[finite]) <= allowed).all()
    np.testing.assert_allclose(again.tails, rows.tails, rtol=1e-3, atol=1e-6)


def test_any_part_of_a_block_can_be_had() -> None:
    rows = example(30, 500, 6)
    packing = Packing(order=np.arange(500), k=6, value_type="float16")
    block = packing.pack(rows)
    parts = concatenate([packing.unpack(block, slice(start, start + 10)) for start in (0, 10, 20)])
    whole = packing.unpack(block)
    for name in ("ids", "gaps", "tails"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_tails_that_are_nothing_or_everything_stay_so() -> None:
    rows = example(2, 50, 3)
    tails = np.array([[-np.inf, -np.inf], [0.0, -1e-9]], dtype=np.float32)
    rows = StoredTopK(ids=rows.ids, gaps=rows.gaps, tails=tails)
    packing = Packing(order=np.arange(50), k=3, value_type="log8")
    again = packing.unpack(packing.pack(rows)).tails
    assert np.isinf(again[0]).all()
    assert (again[1] < 0).all(), "the known tokens would have no probability at all"
    assert (again[1] > -1e-6).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_eight_bits_on_a_log_scale_cost_about_a_thousandth_of_a_nat(temperature: float) -> None:
    rows = example(400, 5_000, 64)
    packing = Packing(order=np.arange(5_000), k=64, value_type="log8")
    gaps, again = by_id(rows)[1] / temperature, by_id(packing.unpack(packing.pack(rows)))[1] / temperature
    p, q = (np.exp(-some) / np.exp(-some).sum(1, keepdims=True) for some in (gaps.astype(np.float64), again))
    assert temperature**2 * (p * np.log(p / q)).sum(1).mean() < 2e-3
    assert (p * np.log(p / q)).sum() > 0


@pytest.mark.parametrize("value_type", ["log8", "float16"])
def test_a_near_tie_does_not_hide_the_argmax(value_type: ValueType) -> None:
    rows = StoredTopK(
        ids=np.array([[7, 3, 5]]),
        gaps=np.array([[0.0, 1e-7, 1e-4]], dtype=np.float32),
        tails=np.full((1, 2), -1.0, dtype=np.float32),
    )
    packing = Packing(order=np.arange(9), k=3, value_type=value_type)
    again = packing.unpack(packing.pack(rows))
    assert again.ids[again.gaps == 0].tolist() == [7]


def test_a_tie_of_the_teacher_is_decided_once() -> None:
    kept = keep_top_k(torch.tensor([[1.0, 2.0, 2.0, 2.0]]), 3, 1.0).stored
    assert (kept.gaps == 0).sum() == 1
    np.testing.assert_allclose(kept.gaps, 0, atol=1e-6)
