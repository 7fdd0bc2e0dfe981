"""Small teachers of every family that is known, with gains and biases that are not one and zero."""

from typing import Any

import pytest
import torch
import transformers

SIZES = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 4},
    "Qwen2": {"num_key_value_heads": 4},
    "Qwen3": {"num_key_value_heads": 4, "head_dim": 16},
    "Mistral": {"num_key_value_heads": 4},
    "SmolLM3": {"num_key_value_heads": 4},
    "Gemma": {"num_key_value_heads": 4, "head_dim": 16},
    "Gemma2": {"num_key_value_heads": 4, "head_dim": 16},
    "Gemma3Text": {"num_key_value_heads": 4, "head_dim": 16},
    "Phi3": {"num_key_value_heads": 4},
    "Phi": {"num_key_value_heads": 4},
    "GPT2": {},
    "GPTNeo": {"attention_types": [[["global", "local"], 2]], "window_size": 4},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": 128, "word_embed_proj_dim": 64},
}
TURNABLE = [kind for kind in KINDS if kind not in ("Gemma2", "Gemma3Text")]


def make_teacher(kind: str, *, tied: bool = False, **sizes: Any) -> Any:
    config = getattr(transformers, f"{kind}Config")(**SIZES | KINDS[kind] | sizes, tie_word_embeddings=tied)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 50, (6, 20))
