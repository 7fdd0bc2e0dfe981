"""A small Llama or GPT-2 as int8 weights that dashboard/worker/engine.js runs: one shape for both kinds.

Knows both architectures' tensors; knows nothing of runs or files. Every matrix becomes symmetric int8 by row, q =
round(w / s) with s = max|row| / 127; norms, biases and rotary frequencies stay float32. Activations are float32.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from apt_model.events.stages import MOST_PARAMETERS

ACTIVATIONS = ("silu", "gelu_new", "gelu_pytorch_tanh", "relu")
FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # frequencies that do not depend on a text's length
_LLAMA = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}
_GPT2 = {"o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj", "norm1": "ln_1", "norm2": "ln_2"}


def refusal(model: nn.Module) -> str | None:
    """Why a model cannot be run in the browser, or None if it can."""
    config: Any = getattr(model, "config", None)
    kind, count = getattr(config, "model_type", type(model).__name__), sum(one.numel() for one in model.parameters())
    if kind not in ("llama", "gpt2") or type(model).__name__ not in ("LlamaForCausalLM", "GPT2LMHeadModel"):
        return f"a student of kind {kind} ({type(model).__name__})"
    if count > MOST_PARAMETERS:
        return f"a student of {count:,} parameters"
    act = config.hidden_act if kind == "llama" else config.activation_function
    if act not in ACTIVATIONS:
        return f"a student with the activation {act}"
    if kind == "llama" and (rotary := config.rope_parameters["rope_type"]) not in FIXED_ROTARY:
        return f"a student with rotary scaling of type {rotary}"
    return None


def shape_of(model: Any) -> dict[str, Any]:
    """The numbers that the engine needs besides the weights; of a model that is not refused."""
    config = model.config
    if config.model_type == "llama":
        return {
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_size": config.head_dim,
            "context": config.max_position_embeddings,
            "norm": "rms",
            "epsilon": config.rms_norm_eps,
            "activation": config.hidden_act,
            "scales": [config.head_dim**-0.5] * config.num_hidden_layers,
            "rotary_scale": model.model.rotary_emb.attention_scaling,
        }
    size = config.n_embd // config.n_head
    scale = size**-0.5 if config.scale_attn_weights else 1.0
    by_layer = config.scale_attn_by_inverse_layer_idx
    return {
        "layers": config.n_layer,
        "heads": config.n_head,
        "kv_heads": config.n_head,
        "head_size": size,
        "context": config.n_positions,
        "norm": "layer",
        "epsilon": config.layer_norm_epsilon,
        "activation": config.activation_function,
        "scales": [scale / (at + 1 if by_layer else 1) for at in range(config.n_layer)],
    }


def tensors_of(model: Any) -> dict[str, Tensor]:
    """The weights by the engine's names: `0.q` (int8, out × in) with `0.q.scale` (float32, out) and `0.q.bias`."""
    found: dict[str, Tensor] = {}
    for name, value in _named(model):
        value = value.detach().float().cpu()
        if value.dim() == 2:
            found[name], found[f"{name}.scale"] = quantized(value)
        else:
            found[name] = value.contiguous().clone()
    return found


def quantized(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 of a float32 matrix (out, in), and the scale of each row (out): matrix ≈ int8 · scale."""
    scale = matrix.abs().amax(dim=1) / 127
    return (matrix / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().to(
        torch.int8
    ).contiguous(), scale


def _named(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model by the engine's names, matrices as (out, in)."""
    inner = model.model if model.config.model_type == "llama" else model.transformer
    is_llama = model.config.model_type == "llama"
    embedding = inner.embed_tokens if is_llama else inner.wte
    yield "embed", embedding.weight
    if model.lm_head.weight is not embedding.weight:
        yield "head", model.lm_head.weight
    yield from _of_module("norm", inner.norm if is_llama else inner.ln_f)
    if is_llama:
        yield "rotary", inner.rotary_emb.inv_freq
    else:
        yield "positions", inner.wpe.weight
    for at, layer in enumerate(inner.layers if is_llama else inner.h):
        for name, path in (_LLAMA if is_llama else _GPT2).items():
            yield from _of_module(f"{at}.{name}", layer.get_submodule(path))
        if not is_llama:  # one product makes q, k and v
            joined = layer.attn.c_attn
            parts = zip("qkv", joined.weight.T.chunk(3), joined.bias.chunk(3), strict=True)
            for name, weight, bias in parts:
                yield f"{at}.{name}", weight
                yield f"{at}.{name}.bias", bias


def _of_module(name: str, module: Any) -> Iterator[tuple[str, Tensor]]:
    transposed = type(module).__name__ == "Conv1D"
    yield name, module.weight.T if transposed else module.weight
    if getattr(module, "bias", None) is not None:
        yield f"{name}.bias", module.bias
