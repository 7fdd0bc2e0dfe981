"""Codec of the cached top-k: positions to compressed bytes and back. Knows arrays; knows nothing of models or files.

A block holds the positions of some rows as streams of bytes, each compressed with zstd: token ids as ranks by
frequency, sorted, and stored as differences; logits as distances from the position's highest, 8 bits on a scale that
is fine near the top and coarse far below it (or float16); and the log-mass of the tail at two temperatures.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ValueType = Literal["log8", "float16"]

ZSTD = pa.Codec("zstd", 9)
STEPS, KNEE = 32.0, 0.5  # log8: 32 steps to each factor e of gap + 1/2; a step is 1/64 at the top, 1/3 at a gap of 10
RULED_OUT = 255
# log8 decoded: gap = KNEE · (exp(code / STEPS) − 1), as a table; the last code is infinity
GAP_OF_CODE = np.append(KNEE * np.expm1(np.arange(RULED_OUT) / STEPS), np.inf).astype(np.float32)
LEAST_HALF = np.float16(6e-8)  # the smallest that is not 0


@dataclass(frozen=True, kw_only=True)
class StoredTopK:
    """The top k of the teacher's logits at N positions.

    Attributes:
        ids: (N, k) int64; tokens, in no particular order.
        gaps: (N, k) float32; the position's highest logit minus this token's, infinite where the teacher rules it
            out. Exactly one gap of a position is 0, whose token is the teacher's argmax.
        tails: (N, 2) float32; log of the probability of all other tokens together, at the temperature of the
            training and at 1. Minus infinity where there are none.
    """

    ids: NDArray[np.int64]
    gaps: NDArray[np.float32]
    tails: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> "StoredTopK":
        return StoredTopK(ids=self.ids[part], gaps=self.gaps[part], tails=self.tails[part])


def concatenate(parts: "list[StoredTopK]") -> StoredTopK:
    """Positions one after the other."""
    return StoredTopK(
        ids=np.concatenate([part.ids for part in parts]),
        gaps=np.concatenate([part.gaps for part in parts]),
        tails=np.concatenate([part.tails for part in parts]),
    )


def empty(k: int) -> StoredTopK:
    """No position at all."""
    return StoredTopK(
        ids=np.zeros((0, k), np.int64), gaps=np.zeros((0, k), np.float32), tails=np.zeros((0, 2), np.float32)
    )


class Packing:
    """Turns positions into bytes and back.

    Args:
        order: (V,) every token id once, likeliest first: what is frequent costs least.
        k: tokens kept at a position.
        value_type: "log8" (off by about 1e-3 nats at temperature 4, 2e-4 at 1), or "float16".
    """

    def __init__(self, *, order: NDArray[np.int64], k: int, value_type: ValueType) -> None:
        self._order, self._k, self._value_type = order, k, value_type
        self._ranks = np.empty_like(order)
        self._ranks[order] = np.arange(len(order))
        self._id_bytes = max(1, (int(len(order) - 1).bit_length() + 7) // 8)

    @property
    def bytes_per_position(self) -> int:
        """Bytes of a position before compression."""
        return self._k * (self._id_bytes + (1 if self._value_type == "log8" else 2)) + 4

    def pack(self, positions: StoredTopK) -> bytes:
        """One block; positions that come together in time share much, so a few hundred make a good block."""
        # ids: sorted ranks r₀ < r₁ < … as steps rᵢ − rᵢ₋₁ − 1, nearly all of them small: the high bytes are zeros
        ranks = self._ranks[positions.ids]
        by_rank = np.argsort(ranks, axis=1)
        ranks = np.take_along_axis(ranks, by_rank, axis=1)
        steps = np.diff(ranks, axis=1, prepend=-1) - 1
        streams = [(steps >> 8 * plane).astype(np.uint8) for plane in range(self._id_bytes)]
        # gaps in the order of their ids; one that is not 0 stays so, or the argmax would be lost
        gaps = np.take_along_axis(positions.gaps, by_rank, axis=1)
        streams += [_log8(gaps)] if self._value_type == "log8" else _planes(_half(gaps))
        # log-masses of the tails, below 0 by at least the smallest half: exp of 0 would leave the top k nothing
        streams += _planes(np.minimum(positions.tails, -LEAST_HALF).astype(np.float16))
        frames = [ZSTD.compress(stream.tobytes(), asbytes=True) for stream in streams]
        header = np.array([len(positions), *map(len, frames)], dtype="<u4")
        return header.tobytes() + b"".join(frames)

    def unpack(self, block: bytes, part: slice = slice(None)) -> StoredTopK:
        """The positions of a block, or a part of them."""
        value_bytes = 1 if self._value_type == "log8" else 2
        widths = [self._k] * (self._id_bytes + value_bytes) + [2, 2]
        # the header: positions, then the compressed size of each stream
        count, *sizes = np.frombuffer(block, dtype="<u4", count=1 + len(widths)).tolist()
        streams, at = [], 4 * (1 + len(widths))
        for size, width in zip(sizes, widths, strict=True):
            raw = ZSTD.decompress(block[at : at + size], count * width)
            streams.append(np.frombuffer(raw, dtype=np.uint8).reshape(count, width)[part])
            at += size
        ids, values, tails = streams[: self._id_bytes], streams[self._id_bytes : -2], streams[-2:]
        # ids: bytes to steps + 1, summed up to ranks + 1
        steps = sum(plane.astype(np.int64) << 8 * i for i, plane in enumerate(ids)) + np.int64(1)
        return StoredTopK(
            ids=self._order[np.cumsum(steps, axis=1) - 1],
            gaps=GAP_OF_CODE[values[0]] if self._value_type == "log8" else _from_planes(values),
            tails=_from_planes(tails),
        )


def _log8(gaps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """code = round(STEPS · log(1 + gap / KNEE)): steps grow with the gap, whose token's probability falls faster.

    Code 0 is for the argmax alone.
    """
    with np.errstate(invalid="ignore"):
        codes = np.rint(STEPS * np.log1p(gaps / KNEE))
    codes = np.where(np.isinf(gaps), RULED_OUT, np.where(gaps == 0, 0, np.clip(codes, 1, RULED_OUT - 1)))
    return codes.astype(np.uint8)


def _half(gaps: NDArray[np.float32]) -> NDArray[np.float16]:
    """float16, in which only the argmax has a gap of 0; beyond its range is infinity: ruled out."""
    with np.errstate(over="ignore"):
        return np.where(gaps == 0, np.float16(0), np.maximum(gaps.astype(np.float16), LEAST_HALF))


def _planes(values: NDArray[np.float16]) -> list[NDArray[np.uint8]]:
    """The low bytes and the high bytes: zstd finds more in each than in both mixed."""
    pairs = np.ascontiguousarray(values, dtype="<f2").view(np.uint8).reshape(*values.shape, 2)
    return [pairs[..., 0], pairs[..., 1]]


def _from_planes(planes: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    pairs = np.ascontiguousarray(np.stack(planes, axis=-1))
    return pairs.view("<f2")[..., 0].astype(np.float32)
