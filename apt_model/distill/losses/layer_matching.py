"""Layer matching: cosine distance of hidden states, and KL between attention relations, of student and teacher.

Sums over the positions that count, as the other terms of the loss are. Knows nothing of optimizers, weights of terms
or the output heads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from apt_model.config.sections import DistillConfig
from apt_model.distill.losses.logit_blocks import FLOOR
from apt_model.errors import ConfigError, ModelError
from apt_model.models.activations import ActivationRecorder, Activations
from apt_model.models.sharding import shard_layer


class LayerPair(NamedTuple):
    """A layer of the student and the teacher's layer that it is compared with, both counted from 1."""

    student: int
    teacher: int


class ForwardPair(NamedTuple):
    """The activations of one forward pass of each model, on the same batch."""

    student: Activations
    teacher: Activations


def layer_pairs(layer_map: str, student: int, teacher: int) -> tuple[LayerPair, ...]:
    """Which layers are compared, of models of `student` and `teacher` layers.

    "last" compares the last with the last; "even" every layer of the student with the teacher's at the same relative
    depth, the last with the last; or pairs as in "2:4,4:8".

    Raises:
        ConfigError: a layer that is not there.
    """
    if layer_map == "last":
        return (LayerPair(student, teacher),)
    if layer_map == "even":
        depths = range(1, student + 1)
        return tuple(LayerPair(layer, max(1, (2 * layer * teacher + student) // (2 * student))) for layer in depths)
    pairs = tuple(LayerPair(*map(int, pair.split(":"))) for pair in layer_map.split(","))
    beyond = [f"{own}:{their}" for own, their in pairs if own > student or their > teacher]
    if beyond:
        expected = f"layers up to {student} of the student and {teacher} of the teacher"
        raise ConfigError("layer_map names a layer that is not there", got=", ".join(beyond), expected=expected)
    return pairs


class Matcher(nn.Module):
    """Compares layers; its parameters are projections from the student's width to the teacher's, where they differ.

    They are trained with the student and are no part of it. They begin orthogonal, from a generator of their own, so
    that all processes have the same and no other random number is changed.

    Args:
        config: what is compared, and which layers.
        student: not wrapped yet.
        teacher: the model itself.
        device: where both are.
        seed: of the projections.

    Attributes:
        pairs: the layers that are compared.
    """

    def __init__(
        self, config: DistillConfig, student: nn.Module, teacher: nn.Module, *, device: torch.device, seed: int
    ) -> None:
        super().__init__()
        states, attention = config.hidden_weight > 0, config.attention_weight > 0
        self._student = ActivationRecorder(student, "student", states=states, attention=attention)
        self._teacher = ActivationRecorder(teacher, "teacher", states=states, attention=attention)
        self.pairs = layer_pairs(config.layer_map, self._student.depth, self._teacher.depth)
        self._student.layers = {pair.student for pair in self.pairs}
        self._teacher.layers = {pair.teacher for pair in self.pairs}
        generator = torch.Generator().manual_seed(seed)
        widths = [(self._student.widths[own], self._teacher.widths[their]) for own, their in self.pairs if states]
        self.projections = nn.ModuleList(_projection(*pair, generator) for pair in widths).to(device)

    @classmethod
    def wanted(
        cls, config: DistillConfig, student: nn.Module, teacher: nn.Module | None, *, device: torch.device, seed: int
    ) -> "Matcher | None":
        """A matcher if `hidden_weight` or `attention_weight` is above 0 and the teacher is a model, else None.

        The student is moved to `device` first: its layers are found by a forward pass.
        """
        if teacher is None or not (config.hidden_weight or config.attention_weight):
            return None
        return cls(config, student.to(device), teacher, device=device, seed=seed)

    @property
    def notice(self) -> tuple[str, dict[str, str]]:
        """Which layers are compared, as a notice's key and values."""
        return "notice.matching", {"pairs": ", ".join(f"{own}:{their}" for own, their in self.pairs)}

    def shard(self, device: torch.device) -> None:
        """Split the projections over all processes, as a sharded student is: one optimizer has both. Collective."""
        for projection in self.projections:
            if isinstance(projection, nn.Linear):
                shard_layer(projection, device)

    @contextmanager
    def trained_by(self, optimizer: Optimizer) -> Iterator[None]:
        """Context manager: adds the projections to the optimizer's first parameter group, and removes them later."""
        ours = set(self.parameters())
        optimizer.param_groups[0]["params"].extend(self.parameters())
        try:
            yield
        finally:
            group = optimizer.param_groups[0]  # another dict than before, where a checkpoint was loaded
            group["params"] = [parameter for parameter in group["params"] if parameter not in ours]
            for parameter in ours:
                optimizer.state.pop(parameter, None)

    @contextmanager
    def recording(self) -> Iterator[ForwardPair]:
        """Context manager: records the activations of both models' forward passes inside it, for `sums`."""
        with self._student.recording() as student, self._teacher.recording() as teacher:
            yield ForwardPair(student, teacher)

    def sums(self, seen: ForwardPair, positions: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Two float32 scalars: Σ hidden distance and Σ attention KL over N positions, each the mean over the pairs.

        A term whose weight is 0 is 0. Gradient flows to the student and the projections.

        Args:
            seen: the activations of one batch.
            positions: (N) int64, indices into the batch's B · L tokens.
            attention_mask: (B, L), 1 where there is text.
        """
        hidden, attention = torch.zeros(2, device=positions.device)
        with torch.autocast(positions.device.type, enabled=False):
            for pair, projection in zip(self.pairs, self.projections, strict=False):
                own, theirs = seen.student.states[pair.student], seen.teacher.states[pair.teacher].to(positions.device)
                own, theirs = (x.flatten(0, 1).index_select(0, positions).float() for x in (own, theirs))
                hidden = hidden + hidden_distance(projection(own), theirs).sum()
            for pair in self.pairs if seen.student.attended else ():
                ours, others = seen.student.attended[pair.student], seen.teacher.attended[pair.teacher]
                for mine, other in zip(ours, others, strict=True):
                    kl = _relation_kl_in_little_room(mine, other.to(mine.device), attention_mask).flatten()
                    attention = attention + kl.index_select(0, positions).sum() / len(ours)
        return hidden / len(self.pairs), attention / len(self.pairs)


def _projection(student: int, teacher: int, generator: torch.Generator) -> nn.Module:
    if student == teacher:
        return nn.Identity()
    linear = nn.Linear(student, teacher, bias=False, device="meta").to_empty(device="cpu")  # draws no random number
    nn.init.orthogonal_(linear.weight, generator=generator)
    return linear


def hidden_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cosine of the angle between hidden states (N, H), (N) in 0..2.

    The direction alone, because that is all that a layer reads of the stream: it normalises its input. Nothing is lost
    to the student for having another scale, and no channel of enormous values sets the scale of the loss. It is half
    the squared distance of the states at length 1.
    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3.
    """
    return 1 - F.cosine_similarity(student, teacher.detach(), dim=-1)


def relation_kl(student: Tensor, teacher: Tensor, attention_mask: Tensor) -> Tensor:
    """KL(teacher ‖ student) of how each token relates to those before it, (B, L) in nats, mean over relation heads.

    A relation is softmax(x xᵀ / √d) over the tokens up to each one, of queries, keys or values alike: it asks for no
    equal number of heads. Heads are joined into as many groups as divide both numbers of heads.
    Shapes: (B, heads, L, d) each, heads and d of its own; attention_mask (B, L). Rows of padding mean nothing.
    Source: Wang et al. 2021 (MiniLMv2), arXiv:2012.15828, section 3; here causal.
    """
    length = student.shape[2]
    if teacher.shape[2] != length:
        got = f"student {length}, teacher {teacher.shape[2]}"
        raise ModelError("attention of student and teacher covers different numbers of tokens", got=got)
    groups = gcd(student.shape[1], teacher.shape[1])
    causal = torch.ones(length, length, dtype=torch.bool, device=student.device).tril()
    unseen = ~(causal & (attention_mask != 0)[:, None, None, :])
    q, p = (_log_relations(x, groups, unseen) for x in (student, teacher.detach()))
    return F.kl_div(q, p, reduction="none", log_target=True).sum(dim=-1).mean(dim=1)


def _relation_kl_in_little_room(student: Tensor, teacher: Tensor, attention_mask: Tensor) -> Tensor:
    """The same row by row, whose (groups, L, L) are made anew for the backward pass: never more than one row's."""
    rows = zip(*(torch.split(one, 1) for one in (student, teacher, attention_mask)), strict=True)
    return torch.cat([checkpoint(relation_kl, *row, use_reentrant=False, preserve_rng_state=False) for row in rows])


def _log_relations(heads: Tensor, groups: int, unseen: Tensor) -> Tensor:
    """Log-probabilities (B, groups, L, L)."""
    count, _, length, width = heads.shape
    joined = heads.float().view(count, groups, -1, length, width).transpose(2, 3).flatten(3)  # (B, groups, L, d)
    scores = joined @ joined.transpose(2, 3) / joined.shape[-1] ** 0.5
    relations: Tensor = scores.masked_fill(unseen, FLOOR).log_softmax(dim=-1)
    return relations
