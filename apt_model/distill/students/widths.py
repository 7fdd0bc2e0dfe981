"""Fit a pruned student's sizes (hidden, heads, MLP) to its teacher's: heads keep their size, groups their shape.

Knows configs; knows nothing of weights. (A fresh student may have heads of any size: `fresh`.)
"""

from dataclasses import dataclass
from typing import Any

from apt_model.errors import ModelError

MULTIPLES = ("word_embed_proj_dim", "attention_hidden_size", "lru_width", "embedding_size", "embedding_dim")
STATE_HEADS = (  # of Mamba's layers: their number times their size is the hidden size, expanded
    ("num_heads", "head_dim"),
    ("mamba_n_heads", "mamba_d_head"),
    ("mamba_num_heads", "mamba_head_dim"),
    ("n_mamba_heads", "mamba_headdim"),
)


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Hidden size, heads and MLP size of a model.

    Attributes:
        hidden: hidden size, the width of the residual stream.
        groups: key-value heads.
        per_group: query heads for each key-value head.
        neurons: intermediate size of an MLP.
    """

    hidden: int
    groups: int
    per_group: int
    neurons: int

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.groups * self.per_group


def fit_widths(
    teacher: Widths, *, head_size: int, free_heads: bool, hidden: int | None, heads: int | None, neurons: int | None
) -> Widths:
    """The student's widths: those given, and the rest in proportion to the teacher's.

    Raises:
        ModelError: wider than the teacher, or a number of heads that no choice of groups gives.
    """
    width = teacher.hidden if hidden is None else hidden
    share = width / teacher.hidden
    neurons = neurons or (
        teacher.neurons if hidden is None else min(teacher.neurons, max(8, round(teacher.neurons * share / 8) * 8))
    )
    for name, size, most in (
        ("hidden_size", width, teacher.hidden),
        ("num_attention_heads", heads or 1, teacher.heads),
        ("intermediate_size", neurons, teacher.neurons),
    ):
        if not 1 <= size <= most:
            raise ModelError(f"{name} does not fit the teacher", got=size, expected=f"1 to {most}")
    if not free_heads:
        heads = _heads_of_that_size(head_size, width, heads)
    groups, per_group = _nearest_groups(teacher, heads, share)
    return Widths(hidden=width, groups=groups, per_group=per_group, neurons=neurons)


def _heads_of_that_size(head_size: int, width: int, heads: int | None) -> int:
    """How many heads a hidden size has if it consists of them.

    Raises:
        ModelError: they do not fill it, or `heads` is another number.
    """
    if width % head_size or heads not in (None, width // head_size):
        raise ModelError(
            "hidden_size and num_attention_heads do not keep the teacher's head size",
            got=f"{width}" + (f", {heads} heads" if heads else ""),
            expected=f"multiples of {head_size}, with one head for each {head_size}",
        )
    return width // head_size


def _nearest_groups(teacher: Widths, heads: int | None, share: float) -> tuple[int, int]:
    """Key-value heads and query heads for each of them: `heads` together, or nearest to that share of the teacher's.

    Raises:
        ModelError: no choice of the teacher's groups gives that many.
    """
    choices = {
        (groups, per_group)
        for groups in range(1, teacher.groups + 1)
        for per_group in range(1, teacher.per_group + 1)
        if heads in (None, groups * per_group)
    }
    if not choices:
        every = sorted({g * q for g in range(1, teacher.groups + 1) for q in range(1, teacher.per_group + 1)})
        raise ModelError(
            "num_attention_heads does not fit the teacher's key-value groups",
            got=heads,
            expected=f"one of {', '.join(map(str, every))}",
        )
    wanted = heads or teacher.heads * share
    # of choices with equally many heads, drop whole groups: the proportion of query to key-value heads is the teacher's
    return min(choices, key=lambda one: (abs(one[0] * one[1] - wanted), -one[1]))


def set_widths(config: Any, widths: Widths, *, head_size: int, free_heads: bool, neuron_names: tuple[str, ...]) -> None:
    """Write the widths into a config."""
    set_hidden_size(config, widths.hidden)
    config.num_attention_heads = widths.heads
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = widths.groups
    if free_heads:
        config.head_dim = head_size
    for name in neuron_names:
        if hasattr(config, name):
            setattr(config, name, widths.neurons)


def set_hidden_size(config: Any, hidden: int) -> None:
    """Write a hidden size into a config, and what must follow it: widths that are multiples of it, heads of a Mamba."""
    before = config.hidden_size
    for name in MULTIPLES:
        width = getattr(config, name, None)
        if isinstance(width, int) and width % before == 0:
            setattr(config, name, width // before * hidden)
    config.hidden_size = hidden
    inner = getattr(config, "mamba_d_ssm", None)  # Falcon-H1 names it, others its ratio to the hidden size
    if inner is not None:
        inner = config.mamba_d_ssm = inner * hidden // before
    elif expand := getattr(config, "mamba_expand", None) or getattr(config, "expand", None):
        inner = int(expand * hidden)
    for heads, size in STATE_HEADS:
        if inner is not None and getattr(config, heads, None) and getattr(config, size, None):
            setattr(config, heads, max(1, inner // getattr(config, size)))
