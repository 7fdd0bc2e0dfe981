"""FSDP2 with every kind of model and data that is taught differently: the student is that of DDP, to the last bit."""

from typing import Any

import pytest
from torch import Tensor

from tests.distill.test_fsdp import are_equal, trained

Students = dict[str, dict[str, Tensor]]

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
KINDS = {
    "packed": {"data": "packed"},
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


@pytest.fixture(scope="module", params=[2, 3], ids=["2 processes", "3 processes"])
def students(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Students:
    """The students of all kinds, each without shards and with, all in one start of the processes."""
    sharded = SHARDED if request.param == 2 else ("both",)
    cases = {f"{kind} {fsdp}": case(kind, fsdp) for kind in KINDS for fsdp in ("none", *sharded)}
    return trained(tmp_path_factory.mktemp("kinds"), cases, script=SCRIPT, world=request.param)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_leaves_the_bytes_of_ddp(students: Students, kind: str) -> None:
    found = {fsdp: students[f"{kind} {fsdp}"] for fsdp in SHARDED if f"{kind} {fsdp}" in students}
    assert {fsdp: are_equal(students[f"{kind} none"], one) for fsdp, one in found.items()} == dict.fromkeys(found, True)
