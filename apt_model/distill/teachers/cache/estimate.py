"""Estimate a cache's size, time and approximation error from the teacher's top-k logits of a sample of its rows.

Knows figures; knows nothing of rows, teachers or files.
"""

from dataclasses import dataclass

from apt_model.distill.teachers.cache.topk import MeasuredTopK


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Size, time and approximation error of a cache, estimated from a sample of its rows.

    Attributes:
        positions: number of positions with a label, in all rows.
        bytes_per_token: packed bytes for one position.
        total_bytes: of all shards.
        seconds: the teacher's time for all rows.
        mass_kept: probability of the k tokens at the training temperature, mean over positions.
        hidden_kl_nats: T² times the KL that is lost by treating the tail as one bucket, for a student whose tail is
            uniform; mean over positions. NaN of a source that does not know it.
        whole_kl_nats: T² times the KL of a student that is uniform over the whole vocabulary; mean over positions.
    """

    positions: int
    bytes_per_token: float
    total_bytes: int
    seconds: float
    mass_kept: float
    hidden_kl_nats: float
    whole_kl_nats: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The teacher's top-k logits of a sample of the rows.

    Attributes:
        measured: the logits, with their errors.
        seconds: the teacher's time for them.
    """

    measured: MeasuredTopK
    seconds: float

    def estimate(self, *, packed_bytes: int, positions: int) -> Estimate:
        """Estimate the cache of so many positions; `packed_bytes` is the sample's size in it."""
        sampled = len(self.measured.stored)
        return Estimate(
            positions=positions,
            bytes_per_token=packed_bytes / sampled,
            total_bytes=round(packed_bytes / sampled * positions),
            seconds=self.seconds / sampled * positions,
            mass_kept=float(self.measured.mass_kept.mean()),
            hidden_kl_nats=float(self.measured.hidden_kl.mean()),
            whole_kl_nats=float(self.measured.whole_kl.mean()),
        )
