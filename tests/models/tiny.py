"""A tiny config of every causal architecture that transformers lists: its default one, with small numbers.

Knows the names that configs give to sizes; knows nothing of the product.
"""

from dataclasses import fields
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
LAYERS, VOCABULARY = 4, 64
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL: dict[str, Any] = {}
for _value, _names in (
    (LAYERS, "num_hidden_layers num_layers n_layer n_layers num_blocks decoder_layers encoder_layers "
     "num_decoder_layers num_encoder_layers depth"),
    (VOCABULARY, "vocab_size decoder_vocab_size unpadded_vocab_size vocab_size_per_layer_input "
     "pronunciation_vocab_size shape_vocab_size encoder_hash_byte_group_vocab"),
    (64, "max_position_embeddings n_positions n_ctx max_seq_len model_max_length max_target_positions "
     "max_source_positions context_length original_max_position_embeddings"),
    (32, "hidden_size d_model n_embd embedding_dim emb_dim embed_dim embedding_size word_embed_proj_dim "
     "input_embedding_size output_embedding_size lru_width attention_hidden_size hidden_size_per_layer_input"),
    (64, "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size n_inner dim_ff dff d_inner "
     "feed_forward_size intermediate_size_mlp dense_intermediate_size"),
    (16, "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size "
     "shared_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size router_hidden_size "
     "q_lora_rank kv_lora_rank o_lora_rank rel_extent gated_norm_rank pronunciation_embed_dim shape_embed_dim "
     "hc_lowrank ple_embed_dim image_size"),
    (4, "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads attention_heads "
     "num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads linear_num_value_heads "
     "linear_num_heads index_n_heads num_experts n_routed_experts num_local_experts moe_num_experts "
     "num_mel_bins laurel_rank adapter_rank loop_gate_rank conv_L_cache patch_size"),
    (2, "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_experts_per_tok "
     "num_experts_per_token moe_k moe_topk top_k_experts n_group n_groups num_expert_group zero_expert_num o_groups "
     "hc_mult hc_count"),
    (1, "topk_group n_shared_experts num_shared_experts"),
    (8, "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim "
     "linear_head_dim swa_head_dim dim_head d_head global_head_dim index_head_dim kv_channels attention_head_dim d_rel "
     "rotary_dim mamba_d_state "
     "state_size ssm_state_size mamba_d_head mamba_head_dim time_step_rank mamba_dt_rank chunk_size mamba_chunk_size "
     "sliding_window sliding_window_size window_size attention_window_size attention_chunk_size local_attention "
     "index_topk query_pre_attn_scalar attention_head_size"),
):  # fmt: skip
    SMALL |= dict.fromkeys(_names.split(), _value)
MIXED = ["linear_attention", "full_attention"] * (LAYERS // 2)
LATENT = {"num_key_value_heads": 4, "qk_head_dim": 16}  # of latent attention: its keys have as many heads as queries
SPECIAL: dict[str, dict[str, Any]] = {  # what the names alone do not make fit
    "blt_local_encoder": {"hidden_size_global": 32},
    "blt_local_decoder": {"hidden_size_global": 32},
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "clip_qkv": 8, "kv_n_heads": 2},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "dots3_note_vision_encoder": {"mlp_layer_types": ["dense"] * LAYERS, "adapter_in_dim": 32, "adapter_out_dim": 32},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "dots3_note_text": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
        "head_dim": 16,
    },
    "xlm": {"causal": True},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "inkling2_loop_text": {"n_layers_per_attn_res_block": 1, "loop_layer_index_start": 1, "loop_layer_index_end": 3},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8]},
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"mamba_n_heads": 8, "attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    },
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"mamba_n_heads": 8, "layer_types": MIXED},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": MIXED},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(kind: str) -> PretrainedConfig:
    """The default config of an architecture with small numbers."""
    return _tiny(CONFIG_MAPPING[kind], {})


def _tiny(config_class: Any, more: dict[str, Any]) -> Any:
    own = {field.name for field in fields(config_class)} | set(config_class.attribute_map)
    sizes = SMALL | ENDS | (LATENT if "kv_lora_rank" in own else {})
    values = {name: value for name, value in sizes.items() if name in own}
    special = SPECIAL.get(config_class.model_type, {}) | more
    for name, part in config_class.sub_configs_defaults.items():
        part_class = part if isinstance(part, type) else CONFIG_MAPPING[part.model_type]
        values[name] = _tiny(part_class, special.pop(name, {}))
    if "is_decoder" in own:
        values["is_decoder"] = True
    return config_class(**values | special)
