"""Students of fewer layers: what a config says of single layers follows those that are kept."""

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, JambaConfig, LlamaConfig

from apt_model.distill.students.depth import as_saved, chosen_layers, keep_layers, stacks_of, teachers_name
from apt_model.distill.students.fresh import create_compressed_model
from apt_model.errors import ModelError

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4}
SPOKEN_OF: dict[str, tuple[dict[str, Any], str, Any]] = {  # config, key and what it says once layers 1, 4, 6 are left
    "GPTNeo": ({"attention_types": [[["global", "local"], 3]]}, "attention_layers", ["global", "local", "local"]),
    "SmolLM3": ({"no_rope_layers": [1, 1, 1, 0, 1, 1]}, "no_rope_layers", [1, 0, 1]),
    "Qwen3Moe": ({"mlp_only_layers": [0, 3], "num_experts": 4}, "mlp_only_layers", [0, 1]),
    "Qwen2Moe": ({"decoder_sparse_step": 2, "num_experts": 4}, "mlp_only_layers", [0]),
    "DeepseekV3": ({"first_k_dense_replace": 4, "num_key_value_heads": 4}, "first_k_dense_replace", 2),
    "Gemma3nText": (
        {"num_kv_shared_layers": 3, "intermediate_size": [8, 16, 24, 32, 40, 48]},
        "num_kv_shared_layers",
        2,
    ),
    "Bamba": ({"attn_layer_indices": [3, 5], "mamba_n_heads": 8, "mamba_d_head": 8}, "attn_layer_indices", [1, 2]),
    "RecurrentGemma": ({"block_types": ["recurrent", "recurrent", "attention"]}, "block_types", None),
    "Laguna": ({"num_attention_heads_per_layer": [4, 4, 4, 8, 8, 4]}, "num_attention_heads_per_layer", [4, 8, 4]),
}


@pytest.mark.parametrize("kind", SPOKEN_OF)
def test_what_is_said_of_single_layers_follows_those_that_are_kept(kind: str) -> None:
    settings, key, expected = SPOKEN_OF[kind]
    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    if expected is None:
        expected = ["recurrent", "recurrent", "attention"]  # layers 1, 4 and 6 of that cycle
    keep_layers(config, (0, 3, 5))
    assert list(getattr(config, key)) == expected if isinstance(expected, list) else getattr(config, key) == expected
    assert config.num_hidden_layers == 3


def test_lists_that_only_happen_to_be_as_long_as_the_model_is_deep_stay_whole() -> None:
    mamba = transformers.Mamba2Config(**SIZES | {"num_hidden_layers": 2, "num_heads": 8, "head_dim": 8})
    keep_layers(mamba, (1,))
    assert mamba.time_step_limit == (0.0, float("inf"))
    llama = LlamaConfig(**SIZES | {"num_hidden_layers": 2}, eos_token_id=[2, 3])
    keep_layers(llama, (1,))
    assert llama.eos_token_id == [2, 3]


def test_periods_are_those_that_mark_the_same_layers() -> None:
    config = JambaConfig(**SIZES, attn_layer_period=3, attn_layer_offset=1, expert_layer_period=2)
    kinds, experts = config.layer_types, config.layers_num_experts
    keep_layers(config, (0, 1, 2, 4))
    assert config.layer_types == [kinds[at] for at in (0, 1, 2, 4)]
    assert [n > 1 for n in config.layers_num_experts] == [experts[at] > 1 for at in (0, 1, 2, 4)]


def test_a_mixed_model_keeps_a_layer_with_attention_since_it_could_not_generate_without() -> None:
    kinds = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
    config = transformers.Qwen3NextConfig(**SIZES | {"num_hidden_layers": 4}, layer_types=kinds)
    assert chosen_layers(config, 1) == (2,)
    assert chosen_layers(config, 2) == (0, 2)
    assert chosen_layers(LlamaConfig(**SIZES), 2) == (0, 5)


def test_a_config_that_could_not_be_loaded_again_is_refused_before_a_model_is_made_of_it() -> None:
    kinds = ["linear_attention", "full_attention"] * 3
    config = transformers.OlmoHybridConfig(**SIZES, layer_types=kinds)
    keep_layers(config, (1,))
    with pytest.raises(ModelError, match=r"from this config \(olmo_hybrid\).*at least one 'linear_attention' layer"):
        as_saved(config)


@pytest.mark.parametrize("kind", ["DiffLlama", "Beam"])
def test_weights_of_layers_that_depend_on_their_place_are_not_copied_to_another(kind: str) -> None:
    from tests.models.tiny import tiny_config

    teacher = AutoModelForCausalLM.from_config(tiny_config(kind.lower()))
    with pytest.raises(ModelError, match=r"depend on their place.*model\.layers\.1.*init=fresh"):
        create_compressed_model(teacher, num_layers=2, init="teacher")


def test_all_lists_of_a_models_parts_are_cut_and_not_the_first_alone() -> None:
    from tests.models.tiny import tiny_config

    teacher = AutoModelForCausalLM.from_config(tiny_config("xlm")).eval()
    student = create_compressed_model(teacher, num_layers=2, init="teacher")
    stacks = stacks_of(teacher, student, 4, 2)
    assert len(stacks) == 4  # attentions, feed-forwards, and a norm for each
    names = [name for name in student.state_dict() if teachers_name(name, stacks, (0, 3)) != name]
    assert names
    for name in names:
        assert torch.equal(student.state_dict()[name], teacher.state_dict()[teachers_name(name, stacks, (0, 3))])


def test_without_a_width_asked_for_no_width_is_rounded() -> None:
    teacher = LlamaConfig(**SIZES, intermediate_size=43)
    assert create_compressed_model(teacher, num_layers=1).config.intermediate_size == 43


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "rwkv", "falcon_mamba", "xlstm"])
def test_a_model_without_attention_heads_is_made_narrower_and_refuses_heads_by_name(kind: str) -> None:
    from tests.models.tiny import tiny_config

    config = tiny_config(kind)
    small = create_compressed_model(config, num_layers=2, hidden_size=config.hidden_size // 2)
    assert small.config.hidden_size == config.hidden_size // 2
    with pytest.raises(ModelError, match=f"no one number of attention heads; got {kind}"):
        create_compressed_model(config, num_attention_heads=2)
