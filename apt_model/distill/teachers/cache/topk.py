"""Choose the top-k logits to cache and estimate the KL lost with the rest. Knows nothing of models, rows or files."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apt_model.distill.teachers.cache.codec import StoredTopK, concatenate
from apt_model.errors import NumericError

LEAST_GAP = 1e-7  # of all but the first, so that a tie cannot hide which one is the argmax


@dataclass(frozen=True, kw_only=True)
class MeasuredTopK:
    """The top k of N positions, and what leaving the rest out costs.

    Attributes:
        vocabulary: tokens that the teacher chooses among.
        stored: as it is cached.
        mass_kept: (N,), the probability of the top k together, at the training temperature.
        hidden_kl: (N,), T² · KL in nats that the tail as one outcome hides, for a student that is uniform within it;
            NaN where the tail's tokens are not known.
        whole_kl: (N,), T² · KL in nats to a student that is uniform over all tokens; NaN there too.
    """

    vocabulary: int
    stored: StoredTopK
    mass_kept: NDArray[np.float32]
    hidden_kl: NDArray[np.float32]
    whole_kl: NDArray[np.float32]


def join(parts: "list[MeasuredTopK]") -> MeasuredTopK:
    """Concatenate positions."""
    return MeasuredTopK(
        vocabulary=parts[0].vocabulary,
        stored=concatenate([part.stored for part in parts]),
        mass_kept=np.concatenate([part.mass_kept for part in parts]),
        hidden_kl=np.concatenate([part.hidden_kl for part in parts]),
        whole_kl=np.concatenate([part.whole_kl for part in parts]),
    )


def real_vocabulary(width: int, tokenizer: Any) -> int:
    """Columns of the head that stand for a token; heads are often padded to a round number."""
    return width if tokenizer is None else min(width, max(tokenizer.get_vocab().values()) + 1)


@torch.no_grad()
def keep_top_k(logits: Tensor, k: int, temperature: float) -> MeasuredTopK:
    """The k highest of logits (N, V), and the cost of leaving out the rest.

    Raises:
        NumericError: NaN or infinity among the logits; minus infinity is taken as ruled out.
    """
    logits = logits.float()
    if not torch.isfinite(logits.amax(dim=-1)).all():
        fix = "check the teacher's weights and dtype"
        raise NumericError("the teacher's logits are not finite", got="NaN or infinity", fix=fix)
    values, ids = logits.topk(min(k, logits.shape[-1]), dim=-1)
    # what is cached: distances from the peak, and the log-mass of the tail at T and at 1
    gaps = values[:, :1] - values
    gaps[:, 1:].clamp_(min=LEAST_GAP)
    rest = logits.scatter(-1, ids, -torch.inf)
    tails = [_log_share(rest / t, logits / t) for t in (temperature, 1.0)]
    # KL(p ‖ uniform over n) = log n − H(p): within the tail, times the tail's mass, it is what one bucket cannot show
    # (the chain rule); over all tokens it is the whole of which that is a part
    scaled, tail = logits / temperature, tails[0]
    mass, count = tail.exp(), (rest > -torch.inf).sum(dim=-1)
    within = torch.where(count > 0, count.clamp(min=1).log() - _entropy(rest / temperature), 0.0)
    whole = (logits > -torch.inf).sum(dim=-1).log() - _entropy(scaled)
    return MeasuredTopK(
        vocabulary=logits.shape[-1],
        stored=StoredTopK(
            ids=ids.cpu().numpy(),
            gaps=gaps.cpu().numpy(),
            tails=torch.stack(tails, dim=-1).cpu().numpy(),
        ),
        mass_kept=(1 - mass).cpu().numpy(),
        hidden_kl=(temperature**2 * mass * within).cpu().numpy(),
        whole_kl=(temperature**2 * whole).cpu().numpy(),
    )


def from_log_probs(ids: NDArray[np.int64], log_probs: NDArray[np.float32], *, vocabulary: int) -> MeasuredTopK:
    """Top-k log-probabilities at temperature 1, as a server gives them, in the form that is cached.

    The tail's mass is what the k leave of 1, so the training temperature must be 1; at any other it is not known.

    Args:
        ids: (N, k), each once at a position.
        log_probs: (N, k), natural logarithms in the order of the ids, highest first; minus infinity: ruled out.
        vocabulary: tokens that the teacher chooses among.

    Raises:
        NumericError: NaN, plus infinity, or probabilities that are not in falling order or sum to more than 1.01.
    """
    values = log_probs.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        mass = np.exp(values).sum(axis=1)
        is_sound = np.isfinite(values[:, 0]) & (mass <= 1.01) & (values[:, 1:] <= values[:, :-1]).all(axis=1)
    if not is_sound.all():
        got = ", ".join(f"{value:.4g}" for value in values[np.argmin(is_sound)][:4])
        expected = "finite ones, highest first, of probabilities that sum to 1 at most"
        raise NumericError("log-probabilities of the teacher cannot be right", got=got, expected=expected)
    gaps = (values[:, :1] - values).astype(np.float32)
    gaps[:, 1:] = np.maximum(gaps[:, 1:], LEAST_GAP)
    rest = np.maximum(1 - mass, 0.0) if ids.shape[1] < vocabulary else np.zeros_like(mass)
    with np.errstate(divide="ignore"):
        tail = np.log(rest).astype(np.float32)
    unknown = np.full(len(ids), np.nan, np.float32)
    return MeasuredTopK(
        vocabulary=vocabulary,
        stored=StoredTopK(ids=ids, gaps=gaps, tails=np.stack([tail, tail], axis=-1)),
        mass_kept=(1 - rest).astype(np.float32),
        hidden_kl=unknown,
        whole_kl=unknown,
    )


def _log_share(part: Tensor, whole: Tensor) -> Tensor:
    """log(Σ exp part / Σ exp whole)."""
    return part.logsumexp(dim=-1) - whole.logsumexp(dim=-1)


def _entropy(logits: Tensor) -> Tensor:
    """H = log Σ exp z − Σ p z of softmax(z), in nats; 0 where all are minus infinity, which p = 0 leaves out."""
    probabilities = logits.softmax(dim=-1).nan_to_num()
    return logits.logsumexp(dim=-1).nan_to_num(neginf=0.0) - (
        probabilities * logits.masked_fill(probabilities == 0, 0.0)
    ).sum(dim=-1)
