"""FSDP2 with every kind of model and data that is taught differently: the student is that of DDP, to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distill.test_fsdp import are_equal, trained

SCRIPT = """
import json, os, sys, torch, torch.distributed as dist
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, CONFIG_MAPPING, PreTrainedTokenizerFast
from apt_model.models.lora import add_lora, parse_lora
from apt_model.models.sharding import gathered
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin

out, cases = sys.argv[1], json.loads(sys.argv[2])
dist.init_process_group("gloo")
torch.set_num_threads(1)
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
KINDS = {
    "llama": {}, "tied": {"tie_word_embeddings": True},
    "gemma2": {"final_logit_softcapping": 5.0, "head_dim": 8, "sliding_window": 4, "pad_token_id": 0},
    "qwen3_moe": MOE | {"output_router_logits": True, "head_dim": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True},
}

def model(seed, kind, hidden, layers):
    torch.manual_seed(seed)
    own = {"tied": "llama"}.get(kind, kind)
    config = CONFIG_MAPPING[own](
        vocab_size=64, hidden_size=hidden, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
        **{"tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2} | KINDS[kind])
    return AutoModelForCausalLM.from_config(config)

def tokenizer(pattern, *words):
    known = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split(Regex(pattern), behavior="isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")

torch.manual_seed(3)
ids = torch.randint(4, 64, (16, 12))
mask = (torch.arange(12) < torch.randint(3, 13, (16, 1))).long()
padded = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids, mask)]
starts = torch.randint(3, 9, (16, 1))
places = torch.where(torch.arange(12) < starts, torch.arange(12), torch.arange(12) - starts)
packed = [{"input_ids": i, "attention_mask": torch.ones_like(i), "position_ids": p} for i, p in zip(ids, places)]
letters = "abcdefg"
pairs = [one + two for one in letters for two in letters]
texts = ["".join(letters[i % 7] for i in row) for row in ids.tolist()]
for name, case in cases.items():
    student, teacher = (model(*which) for which in ((2, case["student"], 16, 2), (1, case["teacher"], 32, 3)))
    if case.get("lora"):
        torch.manual_seed(5)
        student = add_lora(student, parse_lora(case["lora"]))
    rows, more = {"packed": packed, "texts": texts}.get(case.get("data"), padded), {}
    if rows is texts:
        more = {"tokenizer": tokenizer(".", *letters), "teacher_tokenizer": tokenizer("..?", *letters, *pairs)}
    if dist.get_rank() and case["settings"]["fsdp"] in ("teacher", "both"):
        teacher.to("meta")
    plugin = VisualDistillationPlugin({
        "learning_rate": 1e-2, "sample_frequency": 3, "seed": 0, "lang": "en", "exam_frequency": 2, "exam_tokens": 4,
        "max_steps": 4, **case["settings"]})
    plugin.visual_distill_model(
        student, teacher, DataLoader(rows, batch_size=2), device="cpu",
        eval_dataloader=DataLoader(rows[:6], batch_size=2), run_dir=f"{out}/{name}", **more)
    whole = gathered(student)
    if dist.get_rank() == 0:
        torch.save({key: one.detach().clone() for key, one in whole.named_parameters()}, f"{out}/{name}.pt")
dist.destroy_process_group()
"""
KINDS: dict[str, dict[str, Any]] = {
    "packed": {"data": "packed"},
    # its gradients are large: clipped, they would be scaled by a norm that is summed by shards
    "cross-tokenizer": {"data": "texts", "settings": {"cross_tokenizer": "kl", "max_grad_norm": 1e9}},
    "gemma2": {"student": "gemma2", "teacher": "gemma2"},
    "qwen3_moe": {"student": "qwen3_moe", "teacher": "qwen3_moe"},
    "mixtral": {"student": "mixtral", "teacher": "mixtral"},
    "tied": {"student": "tied", "teacher": "tied"},
    "lora": {"student": "mixtral", "lora": "r=4"},
}
SHARDED = ("student", "teacher", "both")


def case(kind: str, fsdp: str) -> dict[str, Any]:
    known: dict[str, Any] = {"student": "llama", "teacher": "llama", "settings": {}, **KINDS[kind]}
    return {**known, "settings": {**known["settings"], "fsdp": fsdp}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_leaves_the_bytes_of_ddp(tmp_path: Path, kind: str) -> None:
    cases = {fsdp: case(kind, fsdp) for fsdp in ("none", *SHARDED)}
    found = trained(tmp_path, cases, script=SCRIPT)
    assert {fsdp: are_equal(found["none"], found[fsdp]) for fsdp in SHARDED} == dict.fromkeys(SHARDED, True)


@pytest.mark.slow
def test_three_processes_leave_the_student_of_ddp_within_rounding(tmp_path: Path) -> None:
    # Three gradients are added up in gloo's order, not in that of the ranks: float32 roundings, and so 1e-5 at a rate
    # of 1e-2 over four steps. 64 rows of a weight do not divide by three: shards are padded.
    kinds = ("packed", "mixtral")
    cases = {f"{kind} {fsdp}": case(kind, fsdp) for kind in kinds for fsdp in ("none", "both")}
    found = trained(tmp_path, cases, script=SCRIPT, world=3)
    for kind in kinds:
        for name, one in found[f"{kind} none"].items():
            torch.testing.assert_close(found[f"{kind} both"][name], one, rtol=0, atol=1e-5)
