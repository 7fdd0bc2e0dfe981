"""Rotated streams and pruned parts: what has to come out is known without the code under test."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from apt_model.distill.students.architecture import architecture_of, stream_norms, widths_of
from apt_model.distill.students.cut_weights import Cut, write_student
from apt_model.distill.students.principal_axes import busiest_channels, energy_kept, principal_axes
from tests.distill.students.conftest import KINDS, TURNABLE, make_teacher


def whole(teacher: Any, axes: Tensor, *, folds: bool) -> Cut:
    """All of a teacher, its stream mapped."""
    widths, _ = widths_of(teacher, architecture_of(teacher))
    groups, heads, neurons = (
        dict.fromkeys(range(4), torch.arange(n)) for n in (widths.groups, widths.heads, widths.neurons)
    )
    return Cut(layers=(0, 1, 2, 3), axes=axes, folds=folds, loudness=1.0, groups=groups, heads=heads, neurons=neurons)


def written(teacher: Any, cut: Cut) -> Any:
    """A student of the same size with untied embeddings."""
    architecture, config = architecture_of(teacher), deepcopy(teacher.config)
    config.tie_word_embeddings = False
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    widths, head_size = widths_of(teacher, architecture)
    write_student(teacher, student, architecture, cut, widths=widths, head_size=head_size)
    return student


def some_covariance(size: int) -> Tensor:
    vectors = torch.randn(3 * size, size, dtype=torch.float64)
    return vectors.T @ vectors


@pytest.fixture
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A function that makes a model's norms count in float64: transformers' RMSNorm rounds to float32 on its way."""

    def exact(model: Any) -> Any:
        architecture = architecture_of(model)
        if architecture.norm != "layer":
            for _, norm in stream_norms(model, architecture, tuple(range(model.config.num_hidden_layers))):
                eps = getattr(norm, "variance_epsilon", None) or norm.eps
                gains = norm.weight + (architecture.norm == "rms_plus_one")

                def forward(hidden: Tensor, eps: float = eps, gains: Tensor = gains) -> Tensor:
                    return hidden * (hidden.square().mean(-1, keepdim=True) + eps).rsqrt() * gains

                monkeypatch.setattr(norm, "forward", forward)
        return model

    return exact


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", TURNABLE)
def test_a_stream_that_is_turned_and_not_cut_leaves_the_logits_as_they_were(
    kind: str, tied: bool, ids: Tensor, norms_in_float64: Any
) -> None:
    teacher = make_teacher(kind, tied=tied)
    axes = principal_axes(some_covariance(64), 64, keep_mean=architecture_of(teacher).norm == "layer")
    student = written(teacher, whole(teacher, axes, folds=True))
    with torch.no_grad():
        theirs, mine = norms_in_float64(teacher)(ids).logits, norms_in_float64(student)(ids).logits
    assert (mine - theirs).abs().max() < 1e-10 * theirs.abs().max()
    assert not torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight), (
        "nothing was turned"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_channels_in_another_order_leave_the_logits_as_they_were(kind: str, ids: Tensor) -> None:
    teacher = make_teacher(kind)
    axes = torch.eye(64, dtype=torch.float64)[torch.randperm(64)]
    with torch.no_grad():
        theirs, mine = teacher(ids).logits, written(teacher, whole(teacher, axes, folds=False))(ids).logits
    assert (mine - theirs).abs().max() < 1e-6 * theirs.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_heads_and_neurons_that_write_nothing_can_be_left_out(kind: str, ids: Tensor) -> None:
    teacher = make_teacher(kind)
    architecture = architecture_of(teacher)
    full, size = widths_of(teacher, architecture)
    kept_heads, per_group = [0, 1, 4, 5] if full.per_group == 2 else [0, 2, 5, 7], full.per_group
    groups = torch.tensor(kept_heads[::per_group]) // per_group
    heads, neurons = torch.tensor(kept_heads), torch.randperm(full.neurons)[:72].sort().values
    if not architecture.free_heads:  # the number of heads follows from the width: only neurons can go alone
        groups, heads = torch.arange(full.groups), torch.arange(full.heads)
    for layer in teacher.get_submodule(architecture.stack):
        attention, mlp = (
            layer.get_submodule(name).weight.data for name in (architecture.attention_out, architecture.mlp_out)
        )
        attention, mlp = (m if kind == "GPT2" else m.T for m in (attention, mlp))
        columns = (heads[:, None] * size + torch.arange(size)).flatten()
        for matrix, kept in ((attention, columns), (mlp, neurons)):
            silent = torch.ones(len(matrix), dtype=torch.bool)
            silent[kept] = False
            matrix[silent] = 0.0
    config = deepcopy(teacher.config)
    for name in ("intermediate_size", "ffn_dim", "n_inner"):
        if hasattr(config, name):
            setattr(config, name, 72)
    if architecture.free_heads:
        config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, len(groups), size
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    cut = Cut(
        layers=(0, 1, 2, 3),
        axes=torch.eye(64, dtype=torch.float64),
        folds=False,
        loudness=1.0,
        groups=dict.fromkeys(range(4), groups),
        heads=dict.fromkeys(range(4), heads),
        neurons=dict.fromkeys(range(4), neurons),
    )
    write_student(teacher, student, architecture, cut, widths=full, head_size=size)
    with torch.no_grad():
        theirs, mine = teacher(ids).logits, student(ids).logits
    assert (mine - theirs).abs().max() < 1e-6 * theirs.abs().max()


@pytest.mark.parametrize("keep_mean", [False, True])
def test_the_axes_are_orthonormal_and_keep_what_the_largest_eigenvalues_hold(keep_mean: bool) -> None:
    centre = torch.eye(12, dtype=torch.float64) - 1 / 12 if keep_mean else torch.eye(12, dtype=torch.float64)
    covariance = centre @ some_covariance(12) @ centre
    axes = principal_axes(covariance, 5, keep_mean=keep_mean)
    assert torch.allclose(axes @ axes.T, torch.eye(5, dtype=torch.float64))
    largest = torch.linalg.eigvalsh(covariance)[-4 if keep_mean else -5 :]
    assert energy_kept(covariance, axes) == pytest.approx(float(largest.sum() / covariance.trace()))
    if keep_mean:
        ones = torch.ones(12, dtype=torch.float64) / 12**0.5
        assert torch.allclose(axes @ ones, torch.full((5,), 5**-0.5, dtype=torch.float64))


def test_directions_that_no_text_used_are_at_right_angles_to_the_mean_too() -> None:
    vector = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    axes = principal_axes(torch.outer(vector, vector), 4, keep_mean=True)
    assert torch.allclose(axes @ axes.T, torch.eye(4, dtype=torch.float64))
    assert torch.allclose(axes @ torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))


def test_the_busiest_channels_stay_in_their_order() -> None:
    axes = busiest_channels(torch.tensor([5.0, 0.0, 7.0, 6.0]), 3)
    assert (axes @ torch.tensor([10.0, 20.0, 30.0, 40.0], dtype=torch.float64)).tolist() == [10.0, 30.0, 40.0]
