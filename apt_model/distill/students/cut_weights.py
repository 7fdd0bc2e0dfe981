"""A teacher's weights, cut and written into a smaller model of its kind.

Knows what is kept; knows nothing of why. All products are taken in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apt_model.distill.students.architecture import Anatomy, Rows, embeddings_of, gains_of, layers_of, matrix_of
from apt_model.distill.students.fresh import teachers_name
from apt_model.distill.students.widths import Widths
from apt_model.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What of a teacher goes into a student.

    Attributes:
        layers: the teacher's layers that the student's stand for.
        axes: (student's width, teacher's width), float64: the map of the stream, rows orthonormal.
        folds: whether the axes are turned, so that the gains of a norm cannot stay in it: they go into the matrices
            behind it. Where not, `axes` picks channels.
        loudness: the factor on the gains of norms: one whose input was cut puts out sqrt(teacher's width / student's
            width · share of the squares kept) times less than what it stands for.
        groups: for each of the layers, the key-value heads kept.
        heads: the query heads kept.
        neurons: the neurons kept.
    """

    layers: tuple[int, ...]
    axes: Tensor
    folds: bool
    loudness: float
    groups: Mapping[int, Tensor]
    heads: Mapping[int, Tensor]
    neurons: Mapping[int, Tensor]

    def rescaling(self, anatomy: Anatomy) -> float:
        """What token embeddings grow by where the model multiplies them by the root of its width: that has shrunk."""
        narrow, wide = self.axes.shape
        return float((wide / narrow) ** 0.5) if anatomy.scaled_embeddings else 1.0


@torch.no_grad()
def write_student(teacher: Any, student: Any, anatomy: Anatomy, cut: Cut, *, widths: Widths, head_size: int) -> None:
    """Fill the student with what the cut leaves of the teacher, whose own widths are `widths`.

    Where the axes are turned, the student's norms have gains of `loudness` and its matrices contain the teacher's. A
    bias behind a norm's gains goes into the biases of the matrices; where those have none, it stays in the norm,
    turned. A student with tied embeddings cannot take the last norm's gains into its head: they stay in that norm, as
    the diagonal of what they are in the new axes, which is exact only where they are all the same.
    """
    writer = _StudentWriter(teacher, student, anatomy, cut, widths, head_size)
    writer.write_embeddings()
    for mine, (index, layer) in enumerate(zip(cut.layers, layers_of(student, anatomy), strict=True)):
        writer.write_layer(index, layer, f"{anatomy.stack}.{mine}")
    writer.write_end()
    writer.copy_the_rest()


class _StudentWriter:
    def __init__(self, teacher: Any, student: Any, anatomy: Anatomy, cut: Cut, widths: Widths, head_size: int) -> None:
        self._teacher, self._student, self._anatomy, self._cut = teacher, student, anatomy, cut
        self._widths, self._head_size = widths, head_size
        self._axes = cut.axes
        self._written: set[str] = set()

    def write_embeddings(self) -> None:
        pairs = zip(*(embeddings_of(model, self._anatomy) for model in (self._teacher, self._student)), strict=True)
        for place, (theirs, mine) in enumerate(pairs):
            weight = self._axes @ matrix_of(theirs).double()
            self._put(self._anatomy.embeddings[place], mine, weight * self._cut.rescaling(self._anatomy))

    def write_layer(self, index: int, mine: nn.Module, name: str) -> None:
        theirs = layers_of(self._teacher, self._anatomy)[index]
        for norm, readers in self._anatomy.norms.items():
            rows = {reader: self._rows(kind, index) for reader, kind in readers.items()}
            pairs = {f"{name}.{one}": (theirs.get_submodule(one), mine.get_submodule(one), rows[one]) for one in rows}
            self._read_through(theirs.get_submodule(norm), mine.get_submodule(norm), f"{name}.{norm}", pairs)
        for norm in self._anatomy.after:
            gains = self._axes @ gains_of(theirs.get_submodule(norm), self._anatomy)
            self._put_norm(f"{name}.{norm}", mine.get_submodule(norm), gains, None)
        heads = self._spread(self._cut.heads[index])
        for out, columns in ((self._anatomy.attention_out, heads), (self._anatomy.mlp_out, self._cut.neurons[index])):
            source: Any = theirs.get_submodule(out)
            weight = self._axes @ matrix_of(source)[:, columns].double()
            bias = None if source.bias is None else self._axes @ source.bias.double()
            self._put(f"{name}.{out}", mine.get_submodule(out), weight, bias)

    def write_end(self) -> None:
        theirs, mine = (model.get_submodule(self._anatomy.last_norm) for model in (self._teacher, self._student))
        head, mine_head = self._teacher.get_output_embeddings(), self._student.get_output_embeddings()
        name = next(name for name, module in self._student.named_modules() if module is mine_head)
        tied = mine_head.weight is embeddings_of(self._student, self._anatomy)[0].weight
        if not tied:
            everything = torch.arange(head.weight.shape[0], device=head.weight.device)
            self._read_through(theirs, mine, self._anatomy.last_norm, {name: (head, mine_head, everything)})
            return
        gains, bias = gains_of(theirs, self._anatomy), getattr(theirs, "bias", None)
        gains = (self._axes.square() @ gains) / self._cut.rescaling(self._anatomy)
        self._put_norm(self._anatomy.last_norm, mine, gains, None if bias is None else self._axes @ bias.double())
        self._written.add(f"{name}.weight")

    def copy_the_rest(self) -> None:
        """Norms of queries and keys, and whatever else has nothing to do with width."""
        theirs = self._teacher.state_dict()
        for name, target in self._student.state_dict().items():
            if name in self._written:
                continue
            found = theirs.get(teachers_name(name, self._anatomy.stack, self._cut.layers))
            if found is None or found.shape != target.shape:
                raise ModelError(f"cannot tell what a student gets as {name}", got=type(self._teacher).__name__)
            target.copy_(found)

    def _read_through(self, norm: Any, mine: Any, name: str, readers: Mapping[str, tuple[Any, Any, Tensor]]) -> None:
        """A norm and the matrices behind it: name → (teacher's, student's, rows kept)."""
        gains, bias = gains_of(norm, self._anatomy), getattr(norm, "bias", None)
        folds_bias = self._cut.folds and all(source.bias is not None for source, _, _ in readers.values())
        for full, (source, target, rows) in readers.items():
            weight = matrix_of(source)[rows].double()
            added = None if source.bias is None else source.bias[rows].double()
            if bias is not None and folds_bias and added is not None:
                added = added + weight @ bias.double()
            self._put(full, target, (weight * gains if self._cut.folds else weight) @ self._axes.T, added)
        if not self._cut.folds:
            left = None if bias is None else self._axes @ bias.double()
            self._put_norm(name, mine, self._axes @ gains, left)
        elif bias is None or folds_bias:
            ones = torch.ones(len(self._axes), dtype=torch.float64, device=gains.device)
            self._put_norm(name, mine, ones, None if bias is None else 0 * ones)
        else:
            # behind the norm, the matrices now multiply by its gains: divided here, so that it comes out as it was
            before = torch.where(gains == 0, 0.0, bias.double() / gains)
            ones = torch.ones(len(self._axes), dtype=torch.float64, device=gains.device)
            self._put_norm(name, mine, ones, self._axes @ before)

    def _rows(self, kind: Rows, index: int) -> Tensor:
        """The outputs of a matrix that are kept in a layer."""
        heads, neurons = self._cut.heads[index], self._cut.neurons[index]
        if kind == "neurons":
            return neurons
        if kind == "gate_up":
            return torch.cat([neurons, neurons + self._widths.neurons])
        if kind == "qkv_by_head":
            return self._spread(heads, 3 * self._head_size)
        queries, keys = self._spread(heads), self._spread(self._cut.groups[index])
        if kind == "qkv":
            first_key, size = self._widths.heads * self._head_size, self._widths.groups * self._head_size
            return torch.cat([queries, keys + first_key, keys + first_key + size])
        return queries if kind == "q" else keys

    def _spread(self, heads: Tensor, size: int | None = None) -> Tensor:
        """The rows or columns of heads, `size` for each."""
        size = size or self._head_size
        return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()

    def _put_norm(self, name: str, norm: Any, gains: Tensor, bias: Tensor | None) -> None:
        put_gains(norm, gains * self._cut.loudness, self._anatomy)
        self._written.add(f"{name}.weight")
        if bias is not None:
            norm.bias.copy_(bias)
            self._written.add(f"{name}.bias")

    def _put(self, name: str, module: Any, weight: Tensor, bias: Tensor | None = None) -> None:
        matrix_of(module).copy_(weight)
        self._written.add(f"{name}.weight")
        if bias is not None:
            module.bias.copy_(bias)
            self._written.add(f"{name}.bias")


@torch.no_grad()
def put_gains(norm: Any, gains: Tensor, anatomy: Anatomy) -> None:
    """Set the gains (H,) of a norm, however it keeps them."""
    norm.weight.copy_(gains - 1 if anatomy.norm == "rms_plus_one" else gains)
