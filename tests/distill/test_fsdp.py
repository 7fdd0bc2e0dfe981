"""FSDP2: a run whose models are sharded leaves the student that DDP leaves, and refuses what cannot be sharded."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from apt_model.config import LessonConfig
from apt_model.config.launchers import refuse_other_launchers
from apt_model.distill.fsdp import shard_models, wanted_roles
from apt_model.distill.inputs import Models
from apt_model.distill.setup import make_accelerator
from apt_model.errors import ConfigError, ModelError
from apt_model.models.devices import accelerate_state_of_our_own
from apt_model.models.sharding import blocks_and_rest

SCRIPT = """
import json, os, sys, torch, torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM
from apt_model.config import LessonConfig
from apt_model.models.lora import add_lora, parse_lora
from apt_model.models.sharding import gathered
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin

out, cases = sys.argv[1], json.loads(sys.argv[2])
dist.init_process_group("gloo")  # a run ends a group that it has begun itself

def model(seed, hidden, layers, **more):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=hidden, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=32, **more))

torch.manual_seed(3)
ids = torch.randint(4, 64, (16, 12))
mask = (torch.arange(12) < torch.randint(3, 13, (16, 1))).long()
rows = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids, mask)]
for name, settings in cases.items():
    more = {key: settings.pop(key, None) for key in ("lora", "tied", "dropout", "own")}
    student = model(2, 16, 2, attention_dropout=more["dropout"] or 0.0, tie_word_embeddings=bool(more["tied"]))
    if more["lora"]:
        torch.manual_seed(5)
        student = add_lora(student, parse_lora(more["lora"]))
    teacher = model(1, 32, 3)
    if dist.is_initialized() and dist.get_rank() and settings["fsdp"] == "both":
        teacher.to("meta")  # only the first process has weights
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2) if more["own"] else None
    plugin = VisualDistillationPlugin({
        "learning_rate": 1e-2, "sample_frequency": 3, "seed": 0, "lang": "en", "card_text": "continued",
        "exam_frequency": 2, "exam_tokens": 4, "max_steps": 4, **settings})
    plugin.visual_distill_model(
        student, teacher, DataLoader(rows, batch_size=2), optimizer, device="cpu",
        eval_dataloader=DataLoader(rows[:6], batch_size=2), run_dir=f"{out}/{name}",
        resume_from=f"{out}/{name}" if os.path.exists(f"{out}/{name}/checkpoints") else None)
    whole = gathered(student)
    if dist.get_rank() == 0:
        torch.save({key: one.detach().clone() for key, one in whole.named_parameters()}, f"{out}/{name}.pt")
dist.destroy_process_group()
"""


def started(
    tmp_path: Path, cases: dict[str, dict[str, Any]], script: str = SCRIPT, world: int = 2
) -> "list[subprocess.Popen[str]]":
    """Processes that train the runs one after the other."""
    file = tmp_path / "teach.py"
    file.write_text(script, encoding="utf-8")
    port = 20_000 + os.getpid() % 20_000  # tests may open no socket to ask for a free one
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    return [
        subprocess.Popen(
            [sys.executable, file, tmp_path, json.dumps(cases)],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def trained(
    tmp_path: Path, cases: dict[str, dict[str, Any]], script: str = SCRIPT, world: int = 2
) -> dict[str, dict[str, torch.Tensor]]:
    """The students' weights of runs on several processes, by name."""
    ranks = started(tmp_path, cases, script, world)
    said = [one.communicate(timeout=300)[1] for one in ranks]
    assert [one.returncode for one in ranks] == [0] * world, "\n".join(text[-2000:] for text in said)
    return {name: torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in cases}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_with_both_models_sharded_leave_the_bytes_that_ddp_leaves(tmp_path: Path) -> None:
    found = trained(tmp_path, {"ddp": {"fsdp": "none"}, "both": {"fsdp": "both"}})
    assert are_equal(found["ddp"], found["both"])
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "both" / "student")
    assert type(saved).__name__ == "LlamaForCausalLM"
    assert are_equal({name: one.detach() for name, one in saved.named_parameters()}, found["ddp"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.2},
        {"tied": True},
        {"own": True},
        {"lora": "r=4,dropout=0.2"},
        {"hidden_weight": 0.5, "attention_weight": 0.5},
        {"on_policy": 0.5, "on_policy_tokens": 5},
        {"mixed_precision": "bf16"},
    ],
    ids=lambda settings: "+".join(settings),
)
@pytest.mark.parametrize("fsdp", ["student", "teacher", "both"])
def test_each_kind_of_run_leaves_the_same_bytes_sharded(tmp_path: Path, settings: dict[str, Any], fsdp: str) -> None:
    found = trained(tmp_path, {"ddp": {"fsdp": "none", **settings}, "other": {"fsdp": fsdp, **settings}})
    assert are_equal(found["ddp"], found["other"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"gradient_accumulation_steps": 2}, {"max_grad_norm": 0.01}, {"hidden_weight": 0.5, "layer_map": "even"}],
    ids=["sum", "clip", "inner"],
)
def test_sums_in_another_order_differ_by_rounding(tmp_path: Path, settings: dict[str, Any]) -> None:
    # Each batch's gradient is summed over the processes before it is added to those before it; a norm is summed by
    # shards; a hidden state between layers adds up its gradients in another order. Each moves a gradient by some
    # float32 roundings, 2**-23 of its size, and AdamW a weight by lr = 1e-2 times what that moves its normalised
    # gradient by; four steps, and room for small second moments.
    found = trained(tmp_path, {"ddp": {"fsdp": "none", **settings}, "both": {"fsdp": "both", **settings}})
    for name, one in found["ddp"].items():
        torch.testing.assert_close(found["both"][name], one, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"lora": "r=4,dropout=0.2"}, {"hidden_weight": 0.5}], ids=["", "lora", "hidden"]
)
@pytest.mark.parametrize(("before", "after"), [("both", "both"), ("both", "none"), ("none", "student")])
def test_a_run_that_is_killed_and_resumed_leaves_the_same_bytes(
    tmp_path: Path, settings: dict[str, Any], before: str, after: str
) -> None:
    settings = {"save_steps": 1, "max_steps": 8, "dropout": 0.2, **settings}
    whole = trained(tmp_path, {"whole": {"fsdp": before, **settings}})
    ranks = started(tmp_path, {"killed": {"fsdp": before, **settings}})
    while not (tmp_path / "killed/checkpoints/step-00000003").exists() and ranks[0].poll() is None:
        time.sleep(0.002)
    for one in ranks:
        one.kill()
        one.communicate()
    assert not (tmp_path / "killed/student").exists()
    resumed = trained(tmp_path, {"killed": {"fsdp": after, **settings}})
    assert are_equal(whole["whole"], resumed["killed"])


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "parallelism_config"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP1"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "--fsdp_version 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "FSDP_OFFLOAD_PARAMS"),
    ],
)
def test_what_is_not_offered_in_accelerates_environment_is_refused(environment: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        refuse_other_launchers(environment)


def test_accelerates_fsdp2_shards_both_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    train = LessonConfig.from_dict({}).train
    assert wanted_roles(train, cached=False) == ("student", "teacher")
    assert wanted_roles(train, cached=True) == ("student",)
    assert wanted_roles(LessonConfig.from_dict({"fsdp": "none"}).train, cached=False) == ()


def test_sharding_over_one_process_is_refused(make_model: Any) -> None:
    config = LessonConfig.from_dict({"fsdp": "both"})
    with accelerate_state_of_our_own(), pytest.raises(ConfigError, match="torchrun"):
        shard_models(
            Models(student=make_model(), teacher=make_model(seed=1)),
            config.train,
            make_accelerator(torch.device("cpu"), "no"),
        )


def test_a_cached_teacher_is_not_sharded() -> None:
    with pytest.raises(ConfigError, match="fsdp=student"):
        wanted_roles(LessonConfig.from_dict({"fsdp": "both"}).train, cached=True)


def test_a_model_that_somebody_else_made_parallel_is_refused(make_model: Any) -> None:
    DeepSpeedEngine = type("DeepSpeedEngine", (nn.Sequential,), {})  # noqa: N806 - a class
    config = LessonConfig.from_dict({})
    with accelerate_state_of_our_own(), pytest.raises(ModelError, match="DeepSpeed engine"):
        shard_models(
            Models(student=make_model(), teacher=DeepSpeedEngine(make_model(seed=1))),
            config.train,
            make_accelerator(torch.device("cpu"), "no"),
        )


def test_blocks_are_units_and_the_rest_is_one(make_model: Any) -> None:
    model = make_model(layers=2)
    assert blocks_and_rest(model) == [*model.model.layers, model]
