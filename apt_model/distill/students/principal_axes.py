"""Projections of the residual stream: onto its principal components (PCA), or onto the channels of largest squares.

One projection for all layers. SliceGPT (Ashkboos et al. 2024, arXiv:2401.15024) rotates each layer's stream its own way
and pays for it with a matrix on every residual connection; with one projection a student is a plain model of its
family, which transformers loads. Knows second moments; knows nothing of models.
"""

import torch
from torch import Tensor

from apt_model.distill.students.importance import best


def principal_axes(covariance: Tensor, width: int, *, keep_mean: bool) -> Tensor:
    """The map (width, H), rows orthonormal, float64, onto the strongest principal components.

    The rows are eigenvectors of the covariance Σ x xᵀ: no other map of this width keeps more of Σ |x|².
    With `keep_mean` (models with LayerNorm), the direction (1, ..., 1) of the teacher is mapped to that of the student,
    and the components are chosen at right angles to it: so taking the mean away commutes with the map, and a LayerNorm
    stays one. One of the `width` directions carries the mean.
    """
    size = len(covariance)
    covariance = (covariance + covariance.T) / 2
    if not keep_mean:
        return _strongest(covariance, width)
    # with P = I − 1 1ᵀ for the unit vector 1: P C P is the covariance at right angles to the mean
    ones = _ones(size, covariance)
    centre = torch.eye(size, dtype=torch.float64, device=covariance.device) - torch.outer(ones, ones)
    # the mean gets an eigenvalue below every other (they are all ≥ 0), so that even directions that the text never used
    # come before it and at right angles to it
    covariance = centre @ covariance @ centre - torch.outer(ones, ones) * (1 + covariance.diagonal().sum())
    # the student's own unit mean ⊗ the teacher's, and the components in the rest of the student's stream
    mean = _ones(width, covariance)
    return _away_from_mean(mean) @ _strongest(covariance, width - 1) + torch.outer(mean, ones)


def busiest_channels(channels: Tensor, width: int) -> Tensor:
    """The map (width, H), float64, that picks the channels with the largest squares, in the order they stand.

    Source: Muralidharan et al. 2024, arXiv:2407.14679 (Minitron), section 2.2, with squares for magnitudes.
    """
    return torch.eye(len(channels), dtype=torch.float64, device=channels.device)[best(channels, width)]


def energy_kept(covariance: Tensor, axes: Tensor) -> float:
    """The share, 0..1, of the normalised stream's squares that a map A keeps: tr(A C Aᵀ) / tr C."""
    return float((axes @ covariance * axes).sum() / covariance.diagonal().sum())


def _strongest(covariance: Tensor, count: int) -> Tensor:
    """The eigenvectors (count, H) with the largest eigenvalues, largest first."""
    vectors: Tensor = torch.linalg.eigh(covariance).eigenvectors
    return vectors.flip(1)[:, :count].T


def _ones(size: int, like: Tensor) -> Tensor:
    return torch.full((size,), size**-0.5, dtype=torch.float64, device=like.device)


def _away_from_mean(mean: Tensor) -> Tensor:
    """An orthonormal basis (n, n − 1) of all that is at right angles to a unit vector with no −1 in front.

    The columns, but the first, of the reflection I − 2 v vᵀ / |v|² with v = mean − e₁ (Householder), which swaps `mean`
    and the first axis e₁.
    """
    size = len(mean)
    eye = torch.eye(size, dtype=mean.dtype, device=mean.device)
    normal = mean - eye[0]
    length = normal.square().sum()
    reflection = eye if length == 0 else eye - 2 * torch.outer(normal, normal) / length
    return reflection[:, 1:]
