"""Project and slice a teacher's weights into a smaller model of its family.

Knows what is kept; knows nothing of why. All matrix products are in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apt_model.distill.students.architecture import Architecture, Rows, embeddings_of, gains_of, layers_of, matrix_of
from apt_model.distill.students.depth import teachers_name
from apt_model.distill.students.widths import Widths
from apt_model.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The layers, stream directions, heads and neurons of a teacher that a student keeps.

    Attributes:
        layers: indices of the teacher's layers kept.
        axes: (student's hidden size, teacher's), float64: projection of the residual stream, rows orthonormal.
        folds: whether `axes` is a rotation, so that a norm's gains, which act on single channels, must be folded into
            the matrices that read the norm. If not, `axes` selects channels.
        loudness: factor on the gains of norms. A norm rescales its input to mean square 1; the projected stream should
            come out with mean square teacher's hidden size / student's · share of the squares kept, and this is the
            root of that.
        groups: for each kept layer, indices of its key-value heads kept.
        heads: for each kept layer, indices of its query heads kept.
        neurons: for each kept layer, indices of its MLP neurons kept.
    """

    layers: tuple[int, ...]
    axes: Tensor
    folds: bool
    loudness: float
    groups: Mapping[int, Tensor]
    heads: Mapping[int, Tensor]
    neurons: Mapping[int, Tensor]

    def rescaling(self, architecture: Architecture) -> float:
        """Factor on token embeddings that makes up for a smaller sqrt(hidden size), if the model multiplies by it."""
        narrow, wide = self.axes.shape
        return float((wide / narrow) ** 0.5) if architecture.scaled_embeddings else 1.0


@torch.no_grad()
def write_student(
    teacher: Any, student: Any, architecture: Architecture, cut: Cut, *, widths: Widths, head_size: int
) -> None:
    """Fill the student with the parts of the teacher that the cut keeps; `widths` are the teacher's.

    With a rotation, the student's norms have gains of `loudness`, and its matrices contain the teacher's gains. A
    norm's bias goes into the biases of the matrices that read it; if those have none, it stays in the norm, rotated. A
    head tied to the embeddings cannot take the last norm's gains: they stay in that norm, as the diagonal of the
    rotated gain matrix, which is exact only if all gains are equal.

    Raises:
        ModelError: a weight outside of the known modules has no copy of its shape in the teacher.
    """
    writer = _StudentWriter(teacher, student, architecture, cut, widths, head_size)
    writer.write_embeddings()
    for mine, (index, layer) in enumerate(zip(cut.layers, layers_of(student, architecture), strict=True)):
        writer.write_layer(index, layer, f"{architecture.stack}.{mine}")
    writer.write_end()
    writer.copy_the_rest()


class _StudentWriter:
    def __init__(
        self, teacher: Any, student: Any, architecture: Architecture, cut: Cut, widths: Widths, head_size: int
    ) -> None:
        self._teacher, self._student, self._architecture, self._cut = teacher, student, architecture, cut
        self._widths, self._head_size = widths, head_size
        self._axes = cut.axes
        self._written: set[str] = set()

    def write_embeddings(self) -> None:
        pairs = zip(
            *(embeddings_of(model, self._architecture) for model in (self._teacher, self._student)), strict=True
        )
        for place, (theirs, mine) in enumerate(pairs):
            weight = self._axes @ matrix_of(theirs).double()
            self._put(self._architecture.embeddings[place], mine, weight * self._cut.rescaling(self._architecture))

    def write_layer(self, index: int, mine: nn.Module, name: str) -> None:
        theirs = layers_of(self._teacher, self._architecture)[index]
        for norm, readers in self._architecture.norms.items():
            rows = {reader: self._rows(kind, index) for reader, kind in readers.items()}
            pairs = {f"{name}.{one}": (theirs.get_submodule(one), mine.get_submodule(one), rows[one]) for one in rows}
            self._read_through(theirs.get_submodule(norm), mine.get_submodule(norm), f"{name}.{norm}", pairs)
        for norm in self._architecture.after:
            gains = self._axes @ gains_of(theirs.get_submodule(norm), self._architecture)
            self._put_norm(f"{name}.{norm}", mine.get_submodule(norm), gains, None)
        heads = self._spread(self._cut.heads[index])
        for out, columns in (
            (self._architecture.attention_out, heads),
            (self._architecture.mlp_out, self._cut.neurons[index]),
        ):
            source: Any = theirs.get_submodule(out)
            weight = self._axes @ matrix_of(source)[:, columns].double()
            bias = None if source.bias is None else self._axes @ source.bias.double()
            self._put(f"{name}.{out}", mine.get_submodule(out), weight, bias)

    def write_end(self) -> None:
        theirs, mine = (model.get_submodule(self._architecture.last_norm) for model in (self._teacher, self._student))
        head, mine_head = self._teacher.get_output_embeddings(), self._student.get_output_embeddings()
        name = next(name for name, module in self._student.named_modules() if module is mine_head)
        tied = mine_head.weight is embeddings_of(self._student, self._architecture)[0].weight
        if not tied:
            everything = torch.arange(head.weight.shape[0], device=head.weight.device)
            self._read_through(theirs, mine, self._architecture.last_norm, {name: (head, mine_head, everything)})
            return
        gains, bias = gains_of(theirs, self._architecture), getattr(theirs, "bias", None)
        gains = (self._axes.square() @ gains) / self._cut.rescaling(self._architecture)
        self._put_norm(self._architecture.last_norm, mine, gains, None if bias is None else self._axes @ bias.double())
        self._written.add(f"{name}.weight")

    def copy_the_rest(self) -> None:
        """Copy what does not depend on the widths, such as query and key norms."""
        theirs = self._teacher.state_dict()
        for name, target in self._student.state_dict().items():
            if name in self._written:
                continue
            found = theirs.get(teachers_name(name, (self._architecture.stack,), self._cut.layers))
            if found is None or found.shape != target.shape:
                raise ModelError(
                    f"the teacher has no weight that fits the student's {name}", got=type(self._teacher).__name__
                )
            target.copy_(found)

    def _read_through(self, norm: Any, mine: Any, name: str, readers: Mapping[str, tuple[Any, Any, Tensor]]) -> None:
        """Write a norm and the matrices that read it; `readers`: name → (teacher's, student's, rows kept)."""
        gains, bias = gains_of(norm, self._architecture), getattr(norm, "bias", None)
        folds_bias = self._cut.folds and all(source.bias is not None for source, _, _ in readers.values())
        for full, (source, target, rows) in readers.items():
            weight = matrix_of(source)[rows].double()
            added = None if source.bias is None else source.bias[rows].double()
            if bias is not None and folds_bias and added is not None:
                added = added + weight @ bias.double()
            self._put(full, target, (weight * gains if self._cut.folds else weight) @ self._axes.T, added)
        self._put_norm(name, mine, *self._left_in_norm(gains, bias, folds_bias=folds_bias))

    def _left_in_norm(self, gains: Tensor, bias: Tensor | None, *, folds_bias: bool) -> tuple[Tensor, Tensor | None]:
        """The gains and bias of a student's norm: what is not folded into the matrices that read it."""
        if not self._cut.folds:
            return self._axes @ gains, None if bias is None else self._axes @ bias.double()
        ones = torch.ones(len(self._axes), dtype=torch.float64, device=gains.device)
        if bias is None:
            return ones, None
        if folds_bias:
            return ones, 0 * ones
        # the matrices now multiply the bias by the gains as well, so it is divided by them here
        return ones, self._axes @ torch.where(gains == 0, 0.0, bias.double() / gains)

    def _rows(self, kind: Rows, index: int) -> Tensor:
        """Indices of a matrix's output rows that are kept in a layer."""
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
        """Indices of the rows or columns of whole heads, `size` for each."""
        size = size or self._head_size
        return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()

    def _put_norm(self, name: str, norm: Any, gains: Tensor, bias: Tensor | None) -> None:
        put_gains(norm, gains * self._cut.loudness, self._architecture)
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
def put_gains(norm: Any, gains: Tensor, architecture: Architecture) -> None:
    """Set the gains (H,) of a norm, in the form that its family stores."""
    norm.weight.copy_(gains - 1 if architecture.norm == "rms_plus_one" else gains)
