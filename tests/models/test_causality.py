"""Encoders, encoder-decoders and models without a causal mask are refused with one line; causal families are let pass.

Which is which comes from transformers' own documentation of each class, not from the code under test.
"""

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from apt_model.data.batch import Batch, to_batch
from apt_model.errors import ModelError
from apt_model.models.causality import TOKENS, refuse_not_causal
from apt_model.models.pretrained import load_model, save_model
from tests.conftest import VOCABULARY

CPU = torch.device("cpu")
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}
BART = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1} | {
    f"{side}_{what}": size
    for side in ("encoder", "decoder")
    for what, size in (("attention_heads", 2), ("ffn_dim", 32))
}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4}
ENDS = {"eos_token_id": 2, "bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
MAMBA = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
HEADS = {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 4}
SSM = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 4}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {"layer_types": ["linear_attention", "full_attention"], "shared_expert_intermediate_size": 32} | {
    f"linear_{what}": size
    for what, size in (("num_value_heads", 4), ("num_key_heads", 2), ("key_head_dim", 8), ("value_head_dim", 8))
}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32}

Family = tuple[str, str, dict[str, Any]]
REFUSED: list[Family] = [
    ("BertForMaskedLM", "BertConfig", COMMON),
    ("BertLMHeadModel", "BertConfig", COMMON),
    ("RobertaForMaskedLM", "RobertaConfig", COMMON),
    ("ElectraForMaskedLM", "ElectraConfig", {**COMMON, "embedding_size": 32}),
    ("AlbertForMaskedLM", "AlbertConfig", {**COMMON, "embedding_size": 16}),
    ("DistilBertForMaskedLM", "DistilBertConfig", {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4}),
    ("ModernBertForMaskedLM", "ModernBertConfig", {**COMMON, **ENDS}),
    ("XLNetLMHeadModel", "XLNetConfig", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4}),
    ("T5ForConditionalGeneration", "T5Config", T5),
    ("BartForConditionalGeneration", "BartConfig", BART),
]
ACCEPTED: list[Family] = [
    ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    ("GPT2LMHeadModel", "GPT2Config", GPT2),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", COMMON),
    ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 8}),
    ("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 3}),
    ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, "head_dim": 8, "sliding_window": 3}),
    ("Gemma3ForCausalLM", "Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 3}),
    ("MambaForCausalLM", "MambaConfig", MAMBA),
    ("Mamba2ForCausalLM", "Mamba2Config", {**MAMBA, **HEADS}),
    ("JambaForCausalLM", "JambaConfig", {**GROUPED, **JAMBA, "num_experts": 4, "use_mamba_kernels": False}),
    ("BambaForCausalLM", "BambaConfig", {**GROUPED, **SSM, "attn_layer_indices": [1]}),
    ("FalconH1ForCausalLM", "FalconH1Config", {**GROUPED, **SSM, "mamba_d_ssm": 64}),
    ("Qwen3NextForCausalLM", "Qwen3NextConfig", {**GROUPED, **EXPERTS, **LINEAR, "head_dim": 8}),
    ("RwkvForCausalLM", "RwkvConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}),
    ("MixtralForCausalLM", "MixtralConfig", {**GROUPED, "num_local_experts": 4}),
    ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**GROUPED, **EXPERTS, "head_dim": 8}),
    ("PhiForCausalLM", "PhiConfig", COMMON),
    ("OPTForCausalLM", "OPTConfig", {**COMMON, **OPT}),
    ("BloomForCausalLM", "BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    ("FalconForCausalLM", "FalconConfig", COMMON),
    ("BartForCausalLM", "BartConfig", BART),
    ("BertLMHeadModel", "BertConfig", {**COMMON, "is_decoder": True}),
]


def make(family: Family) -> Any:
    kind, config, sizes = family
    return getattr(transformers, kind)(getattr(transformers, config)(**sizes)).eval()


def rows(*lengths: int) -> Batch:
    """Rows of random tokens, padded on the left."""
    ids = torch.randint(4, VOCABULARY, (len(lengths), max(lengths)))
    mask = torch.tensor([[0] * (max(lengths) - length) + [1] * length for length in lengths])
    return to_batch({"input_ids": ids * mask, "attention_mask": mask})


def is_tried(model: nn.Module, batch: Batch, **more: Any) -> bool:
    return refuse_not_causal(model, batch, role="teacher", device=CPU, **more)


def names(family: Family) -> str:
    return family[0] + "-decoder" * bool(family[2].get("is_decoder"))


@pytest.mark.parametrize("family", REFUSED, ids=names)
def test_a_model_that_sees_what_follows_is_refused_with_one_line(family: Family) -> None:
    for length in (2, 30):
        with pytest.raises(ModelError, match=family[0]) as caught:
            is_tried(make(family), rows(1, length))
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("the teacher ")
        assert "Fix: take a decoder" in str(caught.value)


@pytest.mark.parametrize("family", ACCEPTED, ids=names)
def test_a_causal_family_is_let_pass(family: Family) -> None:
    model = make(family)
    for length in (2, 5, 30):
        assert is_tried(model, rows(1, length))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarse_numbers_tell_as_well(dtype: torch.dtype) -> None:
    wide = {**COMMON, "hidden_size": 256, "intermediate_size": 512}
    with pytest.raises(ModelError, match="expected at most 1%"):
        is_tried(make(("BertForMaskedLM", "BertConfig", wide)).to(dtype), rows(9))
    for family in ACCEPTED[0], ACCEPTED[7], ACCEPTED[14]:
        assert is_tried(make(family).to(dtype), rows(9))


class Prefix(nn.Module):
    """Logits that depend on the mean of all tokens up to the present one, and `ahead` beyond it; drawn noise besides.

    Of 64 columns the last is masked out by -inf.
    """

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self.table, self.ahead = nn.Embedding(VOCABULARY, VOCABULARY), ahead

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        length = input_ids.shape[1]
        seen = torch.ones(length, length).tril(self.ahead)
        logits = (seen / seen.sum(-1, keepdim=True)) @ self.table(input_ids) + torch.randn(length, VOCABULARY)
        assert random.random() + np.random.rand() >= 0
        return nn.functional.dropout(logits, 0.5, self.training).index_fill(-1, torch.tensor([63]), -torch.inf)


def test_a_mask_off_by_one_is_found_and_modes_and_generators_stay_as_they_were() -> None:
    batch = rows(9, 4)
    with pytest.raises(ModelError, match=r"the student sees .* logits that move by \d+% when a token behind"):
        refuse_not_causal(Prefix(ahead=1), batch, role="student", device=CPU)
    model = Prefix(ahead=0).train()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[union-attr]
    assert is_tried(model, batch)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[union-attr]
    assert model.training
    assert model.table.weight.grad is None


def test_a_row_that_says_one_thing_is_enough_and_a_row_of_one_token_is_not() -> None:
    same = to_batch(torch.full((2, 5), 1))
    assert is_tried(make(ACCEPTED[0]), same)
    with pytest.raises(ModelError):
        is_tried(make(REFUSED[0]), same)
    assert not is_tried(make(REFUSED[0]), rows(1, 1))


def test_two_short_rows_are_all_that_it_costs(teacher: Any) -> None:
    read: list[tuple[int, ...]] = []
    teacher.model.embed_tokens.register_forward_hook(lambda _, given, out: read.append(tuple(given[0].shape)))
    is_tried(teacher, rows(3, 60, 12))
    assert read == 2 * [(1, TOKENS)]


def test_logits_that_are_no_numbers_are_left_to_those_who_look_for_them(teacher: Any) -> None:
    broken = copy.deepcopy(teacher)
    broken.lm_head.weight.data.fill_(torch.nan)
    assert is_tried(broken, rows(9))


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (REFUSED[8], "is an encoder-decoder; got T5ForConditionalGeneration"),
        (REFUSED[9], "is an encoder-decoder; got BartForConditionalGeneration"),
        (REFUSED[6], "is no causal language model; got ModernBertForMaskedLM"),
        (REFUSED[5], "is no causal language model; got DistilBertForMaskedLM"),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else "",
)
def test_a_saved_model_that_transformers_cannot_load_as_causal_is_called_what_it_is(
    family: Family, words: str, tmp_path: Path
) -> None:
    save_model(make(family), None, tmp_path / "model")
    with pytest.raises(ModelError, match=words) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)
