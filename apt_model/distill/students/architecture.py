"""Module names of each model family: the layers, norms and matrices that read from and write to the residual stream.

Knows names and layouts of weights; knows nothing of which parts are worth keeping.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from apt_model.distill.students.widths import Widths
from apt_model.errors import ModelError

Rows = Literal["q", "kv", "qkv", "qkv_by_head", "neurons", "gate_up"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Module names of one model family, as in its `state_dict`; those in a layer are relative to the layer.

    Attributes:
        stack: the list of layers.
        embeddings: token embeddings, then learned position embeddings if there are any.
        norms: a layer's input norms, each with the matrices that read it and what their output rows are: "q" query
            heads, "kv" key or value heads, "qkv" all three one after the other, "qkv_by_head" head by head (GPT-NeoX),
            "neurons", or "gate_up" gates and then neurons.
        attention_out: the attention's output projection.
        mlp_out: the MLP's output projection (down_proj).
        after: norms of a sublayer's output, before it is added to the stream (Gemma 2 and 3).
        last_norm: the norm before the output head.
        norm: "rms"; "rms_plus_one", Gemma's, whose stored gains are less by one; or "layer", LayerNorm with a bias.
        free_heads: whether the head size may differ from hidden size / number of heads.
        returns_tuple: whether a layer returns its hidden states in a tuple.
        scaled_embeddings: whether token embeddings are multiplied by sqrt(hidden size), as in Gemma.
    """

    stack: str
    embeddings: tuple[str, ...]
    norms: Mapping[str, Mapping[str, Rows]]
    attention_out: str
    mlp_out: str
    last_norm: str
    after: tuple[str, ...] = ()
    norm: Literal["rms", "rms_plus_one", "layer"] = "rms"
    free_heads: bool = True
    scaled_embeddings: bool = False
    returns_tuple: bool = False


QKV: Mapping[str, Rows] = {"self_attn.q_proj": "q", "self_attn.k_proj": "kv", "self_attn.v_proj": "kv"}
GATED: Mapping[str, Rows] = {"mlp.gate_proj": "neurons", "mlp.up_proj": "neurons"}

LLAMA = Architecture(
    stack="model.layers",
    embeddings=("model.embed_tokens",),
    norms={"input_layernorm": QKV, "post_attention_layernorm": GATED},
    attention_out="self_attn.o_proj",
    mlp_out="mlp.down_proj",
    last_norm="model.norm",
)
GEMMA = replace(LLAMA, norm="rms_plus_one", scaled_embeddings=True)
GEMMA_2 = replace(
    GEMMA,
    norms={"input_layernorm": QKV, "pre_feedforward_layernorm": GATED},
    after=("post_attention_layernorm", "post_feedforward_layernorm"),
)
PHI_3 = replace(
    LLAMA,
    norms={
        "input_layernorm": {"self_attn.qkv_proj": "qkv"},
        "post_attention_layernorm": {"mlp.gate_up_proj": "gate_up"},
    },
)
GPT_2 = Architecture(
    stack="transformer.h",
    embeddings=("transformer.wte", "transformer.wpe"),
    norms={"ln_1": {"attn.c_attn": "qkv"}, "ln_2": {"mlp.c_fc": "neurons"}},
    attention_out="attn.c_proj",
    mlp_out="mlp.c_proj",
    last_norm="transformer.ln_f",
    norm="layer",
    free_heads=False,
)
GPT_NEO = replace(
    GPT_2,
    norms={
        "ln_1": {"attn.attention.q_proj": "q", "attn.attention.k_proj": "kv", "attn.attention.v_proj": "kv"},
        "ln_2": {"mlp.c_fc": "neurons"},
    },
    attention_out="attn.attention.out_proj",
    returns_tuple=True,
)
OPT = Architecture(
    stack="model.decoder.layers",
    embeddings=("model.decoder.embed_tokens", "model.decoder.embed_positions"),
    norms={"self_attn_layer_norm": QKV, "final_layer_norm": {"fc1": "neurons"}},
    attention_out="self_attn.out_proj",
    mlp_out="fc2",
    last_norm="model.decoder.final_layer_norm",
    norm="layer",
    free_heads=False,
)
GPT_NEOX = Architecture(
    stack="gpt_neox.layers",
    embeddings=("gpt_neox.embed_in",),
    norms={
        "input_layernorm": {"attention.query_key_value": "qkv_by_head"},
        "post_attention_layernorm": {"mlp.dense_h_to_4h": "neurons"},
    },
    attention_out="attention.dense",
    mlp_out="mlp.dense_4h_to_h",
    last_norm="gpt_neox.final_layer_norm",
    norm="layer",
    free_heads=False,
)
PHI = Architecture(
    stack="model.layers",
    embeddings=("model.embed_tokens",),
    norms={"input_layernorm": {**QKV, "mlp.fc1": "neurons"}},
    attention_out="self_attn.dense",
    mlp_out="mlp.fc2",
    last_norm="model.final_layernorm",
    norm="layer",
    free_heads=False,
)
FAMILIES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "smollm3": LLAMA,
    "gemma": GEMMA,
    "gemma2": GEMMA_2,
    "gemma3_text": GEMMA_2,
    "phi3": PHI_3,
    "gpt2": GPT_2,
    "gpt_neo": GPT_NEO,
    "opt": OPT,
    "gpt_neox": GPT_NEOX,
    "phi": PHI,
}


def architecture_of(model: Any) -> Architecture:
    """The module names of a loaded causal language model.

    Raises:
        ModelError: an unknown family, or a model of a known one whose modules are wrapped, quantized or missing.
    """
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    architecture = FAMILIES.get(kind)
    head = model.get_output_embeddings() if callable(getattr(model, "get_output_embeddings", None)) else None
    if head is None:
        got, fix = type(model).__name__, "pass the loaded teacher"
        raise ModelError("the teacher to cut a student out of is no causal language model", got=got, fix=fix)
    if architecture is None:
        raise ModelError(
            "a student cannot be cut out of a teacher of this family",
            got=kind,
            expected=f"one of {', '.join(FAMILIES)}",
            fix="use layers=N,init=teacher, which copies layers of any family, or init=fresh",
        )
    try:
        embeddings = embeddings_of(model, architecture)
        matrices = [*embeddings, head, *_matrices_in_layers(model, architecture)]
        model.get_submodule(architecture.last_norm)
    except AttributeError as error:  # such as OPT-350m, which has no norm at the end
        raise ModelError(f"this {kind} model lacks a module that its family has", got=str(error)) from error
    strange = _strange_parts(matrices, embeddings, config)
    if strange:
        expected = "plain linear layers with float weights, embeddings of hidden_size, norms with gains"
        raise ModelError(f"a student cannot be cut out of this {kind} model", got=strange[0], expected=expected)
    return architecture


def _matrices_in_layers(model: nn.Module, architecture: Architecture) -> list[Any]:
    """The layers' matrices.

    Raises:
        AttributeError: a matrix or norm is missing.
    """
    matrices: list[Any] = []
    names = [name for readers in architecture.norms.values() for name in readers]
    for layer in layers_of(model, architecture):
        matrices += [layer.get_submodule(name) for name in (*names, architecture.attention_out, architecture.mlp_out)]
        for name in (*architecture.norms, *architecture.after):
            layer.get_submodule(name)
    return matrices


def _strange_parts(matrices: Sequence[Any], embeddings: Sequence[Any], config: Any) -> list[str]:
    """What cannot be cut: modules that are no plain matrices, weights that are no floats, other sizes, no gains."""
    strange = [type(m).__name__ for m in matrices if type(m) not in (nn.Linear, Conv1D) and m not in embeddings]
    strange += [str(m.weight.dtype) for m in matrices if not m.weight.is_floating_point()]
    strange += [f"embeddings of {len(matrix_of(e))}" for e in embeddings if len(matrix_of(e)) != config.hidden_size]
    strange += ["norms without gains"] if getattr(config, "layer_norm_elementwise_affine", True) is False else []
    return strange


def widths_of(model: Any, architecture: Architecture) -> tuple[Widths, int]:
    """The widths of a model, read off its matrices (configs may lack some), and its head size."""
    layer = layers_of(model, architecture)[0]
    kinds = {kind: name for readers in architecture.norms.values() for name, kind in readers.items()}
    heads = model.config.num_attention_heads
    head_size = matrix_of(layer.get_submodule(architecture.attention_out)).shape[1] // heads
    groups = heads
    if "kv" in kinds:
        groups = len(matrix_of(layer.get_submodule(kinds["kv"]))) // head_size
    elif "qkv" in kinds:
        groups = (len(matrix_of(layer.get_submodule(kinds["qkv"]))) // head_size - heads) // 2
    widths = Widths(
        hidden=len(matrix_of(embeddings_of(model, architecture)[0])),
        groups=groups,
        per_group=heads // groups,
        neurons=matrix_of(layer.get_submodule(architecture.mlp_out)).shape[1],
    )
    return widths, head_size


def layers_of(model: nn.Module, architecture: Architecture) -> list[nn.Module]:
    """The layers, first to last."""
    return list(model.get_submodule(architecture.stack).children())


def embeddings_of(model: nn.Module, architecture: Architecture) -> list[Any]:
    """The embeddings, tokens first."""
    return [model.get_submodule(name) for name in architecture.embeddings]


def stream_norms(model: nn.Module, architecture: Architecture, layers: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """(full name, norm) of every norm that reads the stream, in forward order: the given layers', then the last."""
    for index in layers:
        for name in architecture.norms:
            full = f"{architecture.stack}.{index}.{name}"
            yield full, model.get_submodule(full)
    yield architecture.last_norm, model.get_submodule(architecture.last_norm)


def matrix_of(module: Any) -> Tensor:
    """A view of a weight: of a linear layer or Conv1D as (outputs, inputs), of an embedding as (width, tokens).

    So a module's outputs are always the first dimension.
    """
    weight: Tensor = module.weight
    return weight.T if isinstance(module, Conv1D | nn.Embedding) else weight


@torch.no_grad()
def normalised(hidden: Tensor, architecture: Architecture) -> Tensor:
    """A norm's output for the stream (..., H), before gains and bias: mean square 1, for LayerNorm mean 0; float32."""
    hidden = hidden.float()
    if architecture.norm == "layer":
        hidden = hidden - hidden.mean(dim=-1, keepdim=True)
    return hidden * hidden.square().mean(dim=-1, keepdim=True).clamp(min=1e-12).rsqrt()


def gains_of(norm: Any, architecture: Architecture) -> Tensor:
    """The gains (H,) of a norm, float64."""
    gains: Tensor = norm.weight.detach().double()
    return gains + 1 if architecture.norm == "rms_plus_one" else gains
