"""Smaller models of the teacher's kind."""

from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig

from apt_model.distill.student import create_compressed_model, parse_student
from apt_model.errors import ConfigError, ModelError

LLAMA = LlamaConfig(
    vocab_size=50,
    hidden_size=64,
    intermediate_size=172,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=4,
)


def test_layers_width_heads_and_mlp_shrink_in_proportion() -> None:
    small = create_compressed_model(LLAMA, num_layers=2, hidden_size=32).config
    assert (small.num_hidden_layers, small.hidden_size, small.num_attention_heads, small.num_key_value_heads) == (
        2,
        32,
        4,
        2,
    )
    assert (small.head_dim, small.intermediate_size) == (8, 88)
    assert (LLAMA.num_hidden_layers, LLAMA.hidden_size) == (6, 64)


SIZES = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
}
SIZES |= {
    "num_key_value_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS = {
    "Llama": {}, "Qwen2": {}, "Qwen3": {"head_dim": 16}, "Mistral": {}, "Gemma2": {"head_dim": 16},
    "Gemma3Text": {"head_dim": 16}, "Phi": {}, "Phi3": {}, "SmolLM3": {}, "GPT2": {}, "GPTNeoX": {},
    "OPT": {"ffn_dim": 128, "word_embed_proj_dim": 64},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_shrunk_model_of_each_kind_runs_and_all_its_widths_have_shrunk(kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(**SIZES | KINDS[kind])
    student = create_compressed_model(config, num_layers=2, hidden_size=32)
    assert student(input_ids=torch.ones(1, 5, dtype=torch.long)).logits.shape == (1, 5, 50)
    matrices = [p for name, p in student.named_parameters() if p.ndim == 2]
    assert max(max(p.shape) for p in matrices) <= max(50, 4 * 32)
    assert student.num_parameters() < 0.5 * create_compressed_model(config).num_parameters()


def test_a_model_may_be_given_in_place_of_its_config(teacher: Any) -> None:
    assert create_compressed_model(teacher, num_layers=1).config.hidden_size == teacher.config.hidden_size


def test_what_cannot_be_shrunk_is_refused() -> None:
    with pytest.raises(ModelError, match="expected 1 to 6"):
        create_compressed_model(LLAMA, num_layers=7)
    with pytest.raises(ModelError, match="expected a multiple of 8"):
        create_compressed_model(LLAMA, hidden_size=30)
    with pytest.raises(ModelError, match="got Linear"):
        create_compressed_model(torch.nn.Linear(2, 2))


def test_a_description_is_told_from_a_path() -> None:
    assert parse_student("layers=6,hidden=384") == {"num_layers": 6, "hidden_size": 384}
    assert parse_student("layers=2") == {"num_layers": 2}
    assert parse_student("models/student") is None
    for wrong in ("layers=0", "layers=six", "depth=3"):
        with pytest.raises(ConfigError, match="student is not understood"):
            parse_student(wrong)
