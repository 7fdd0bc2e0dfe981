"""Sizes of a language model that its memory follows from: of published models, of a number such as 70B, of a config.

Numbers only, but for a model directory, whose config is read. Knows nothing of steps or GPUs.
"""

import difflib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from apt_model.errors import ConfigError, brief

SMALLEST, LARGEST = 10**7, 10**12  # parameters
UNITS = {"m": 10**6, "b": 10**9}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder's sizes.

    Attributes:
        parameters: in all; tied tensors once.
        layers: blocks of the decoder.
        hidden: width of the hidden states.
        mlp: width of the MLP's inside; of a mixture of experts, of those together that one token passes.
        query, keys: width of all query heads together, of all key heads together.
        heads: query heads.
        vocabulary: columns of the logits.
        is_tied: the head's weight is the embedding's.
        has_gate: the MLP has a gate beside its up projection.
        has_qk_norm: query and key heads are normalised (Qwen3).
        layer: parameters of the largest layer.
        like: the published shape it was taken or interpolated from; "" if read from a config.
    """

    parameters: int
    layers: int
    hidden: int
    mlp: int
    query: int
    keys: int
    heads: int
    vocabulary: int
    is_tied: bool
    has_gate: bool = True
    has_qk_norm: bool = False
    layer: int
    like: str = ""

    @property
    def head(self) -> int:
        """Parameters of the head's weight."""
        return self.vocabulary * self.hidden

    @property
    def root(self) -> int:
        """Parameters outside of the layers: embedding, head, final norm."""
        return max(0, self.parameters - self.layers * self.layer)

    def kept_bytes(self, *, is_half: bool, checkpoints: bool) -> int:
        """Bytes a token that a forward pass keeps for the backward pass.

        Exact for Llama and Qwen3 with PyTorch's fused attention and float32 weights, under autocast with `is_half`:
        tests compare it with what autograd saves. With gradient checkpointing, each layer's input, and one layer.
        """
        wide, narrow = 4, 2 if is_half else 4
        norms = 2 * 2 * wide * self.hidden  # a norm keeps its input and the normalised hidden states, in float32
        # the products' input: for query, key, value, gate and up a copy each under autocast, else one for each norm
        inputs = ((4 + self.has_gate) * narrow if is_half else 2 * wide) * self.hidden
        attention = narrow * 2 * (self.query + self.keys) + wide * self.heads  # in, out, log-sum
        if self.has_qk_norm:
            attention += (wide + narrow) * (self.query + self.keys)
        inside = narrow * (4 if self.has_gate else 2) * self.mlp
        layer = norms + inputs + attention + inside
        outside = 2 * wide * self.hidden
        return outside + (self.layers * wide * self.hidden + layer if checkpoints else self.layers * layer)


def _shape(
    name: str, layers: int, hidden: int, mlp: int, heads: int, key_heads: int, size: int, tied: bool
) -> ModelShape:
    """A published decoder: bias-free, with gate, heads of `size`."""
    family = name.partition("-")[0]
    vocabulary = {"llama": 128_256, "qwen3": 151_936, "smollm2": 49_152}[family]
    query, keys, is_qwen = heads * size, key_heads * size, family == "qwen3"
    layer = 2 * hidden * (query + keys) + 3 * hidden * mlp + 2 * hidden + 2 * size * is_qwen
    outside = vocabulary * hidden * (1 if tied else 2) + hidden
    return ModelShape(
        parameters=layers * layer + outside,
        layers=layers,
        hidden=hidden,
        mlp=mlp,
        query=query,
        keys=keys,
        heads=heads,
        vocabulary=vocabulary,
        is_tied=tied,
        has_qk_norm=is_qwen,
        layer=layer,
        like=name,
    )


#   name, layers, hidden, MLP, query heads, key heads, size of a head, tied: from the published configs
PUBLISHED = {
    row[0]: _shape(*row)
    for row in (
        ("smollm2-135m", 30, 576, 1536, 9, 3, 64, True),
        ("smollm2-360m", 32, 960, 2560, 15, 5, 64, True),
        ("qwen3-0.6b", 28, 1024, 3072, 16, 8, 128, True),
        ("llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, True),
        ("qwen3-1.7b", 28, 2048, 6144, 16, 8, 128, True),
        ("llama-3.2-3b", 28, 3072, 8192, 24, 8, 128, True),
        ("qwen3-4b", 36, 2560, 9728, 32, 8, 128, True),
        ("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, False),
        ("qwen3-8b", 36, 4096, 12288, 32, 8, 128, False),
        ("qwen3-14b", 40, 5120, 17408, 40, 8, 128, False),
        ("qwen3-32b", 64, 5120, 25600, 64, 8, 128, False),
        ("llama-3.1-70b", 80, 8192, 28672, 64, 8, 128, False),
        ("llama-3.1-405b", 126, 16384, 53248, 128, 8, 128, False),
    )
}
# A number is first looked for among the labels of these, so that 8B is Llama's; else it is interpolated between them.
LADDER = [PUBLISHED[name] for name in PUBLISHED if name != "qwen3-8b"]


def shape_of(text: str) -> ModelShape:
    """The shape of a number of parameters (70B, 350M), of a published model, or of a model directory.

    Raises:
        ConfigError: none of these, or a number out of range. ModelError: the directory's config cannot be read.
    """
    name = text.casefold()
    if name in PUBLISHED:
        return PUBLISHED[name]
    if number := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([mb])", name):
        return _of_number(name, round(float(number[1]) * UNITS[number[2]]))
    if (Path(text) / "config.json").is_file():
        return _of_directory(Path(text))
    close = difflib.get_close_matches(name, PUBLISHED, n=1)
    raise ConfigError(
        "no size, known model or model directory",
        got=brief(text),
        expected="70B, 350M, llama-3.1-8b, qwen3-4b … or a directory with config.json",
        fix=f"did you mean {close[0]}?" if close else None,
    )


def _of_number(label: str, parameters: int) -> ModelShape:
    """The published shape with that label, else one between its neighbours on the ladder, in logarithms."""
    if not SMALLEST <= parameters <= LARGEST:
        raise ConfigError("a model's size is out of range", got=label, expected="10M to 1000B")
    for shape in LADDER:
        if shape.like.endswith(f"-{label}"):
            return shape
    above = next((index for index, one in enumerate(LADDER) if one.parameters > parameters), len(LADDER))
    upper = min(max(above, 1), len(LADDER) - 1)
    low, high = LADDER[upper - 1], LADDER[upper]
    share = math.log(parameters / low.parameters) / math.log(high.parameters / low.parameters)

    def between(key: str) -> int:
        one: int = getattr(low, key)
        other: int = getattr(high, key)
        return max(1, round(one * math.exp(share * math.log(other / one))))

    nearest = high if share > 0.5 else low
    shape = replace(
        nearest,
        parameters=parameters,
        layers=between("layers"),
        hidden=between("hidden"),
        mlp=between("mlp"),
        query=between("query"),
        keys=between("keys"),
        heads=between("heads"),
        like=f"{low.like} … {high.like}",
    )
    root = min(shape.head * (1 if shape.is_tied else 2), parameters // 2)
    return replace(shape, layer=(parameters - root) // shape.layers)


def _of_directory(path: Path) -> ModelShape:
    """The exact counts of the model that a directory's config describes, and the widths that it names."""
    from apt_model.models.skeleton import layers_of, read_skeleton

    model = read_skeleton(path)
    config, names = model.config, {name.rpartition(".")[0].rpartition(".")[2] for name, _ in model.named_parameters()}
    hidden, layers = config.hidden_size, layers_of(model)
    heads = getattr(config, "num_attention_heads", None) or 1
    size = getattr(config, "head_dim", None) or hidden // heads
    widths = (
        getattr(config, key, None) for key in ("moe_intermediate_size", "intermediate_size", "ffn_dim", "n_inner")
    )
    mlp = next((width for width in widths if isinstance(width, int)), 4 * hidden)
    head = model.get_output_embeddings().weight
    return ModelShape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=len(layers) or 1,
        hidden=hidden,
        mlp=mlp * (getattr(config, "num_experts_per_tok", None) or 1),
        query=heads * size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * size,
        heads=heads,
        vocabulary=len(head),
        is_tied=head is model.get_input_embeddings().weight,
        has_gate=bool(names & {"gate_proj", "gate_up_proj"}),
        has_qk_norm="q_norm" in names,
        layer=max(layers, default=0),
    )
