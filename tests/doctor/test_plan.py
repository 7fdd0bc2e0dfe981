"""A distillation on paper: against published figures, against what autograd saves, against a real step."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from apt_model.doctor.plan import Plan, advise, parse_plan
from apt_model.doctor.shapes import PUBLISHED, ModelShape, shape_of
from apt_model.errors import ConfigError

HOME = Path(__file__).parent.parent.parent
BIG = "teacher=70B student=8B gpus=8x80"
SIZES = {
    "hidden_size": 96,
    "intermediate_size": 272,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def plan_of(words: str) -> Plan:
    return parse_plan(words.split())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-8b", 8_190_735_360),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_a_published_shape_has_the_parameters_of_its_model_card(name: str, published: int) -> None:
    assert PUBLISHED[name].parameters == published


def test_a_size_that_nobody_published_lies_between_its_neighbours_and_keeps_its_count() -> None:
    shape, low, high = shape_of("13B"), PUBLISHED["llama-3.1-8b"], PUBLISHED["qwen3-14b"]
    assert shape.parameters == 13 * 10**9
    assert low.hidden < shape.hidden < high.hidden
    assert low.layers < shape.layers < high.layers
    assert shape.layers * shape.layer + shape.root == shape.parameters
    assert shape_of("8b") is low, "a label that two have is Llama's"


def test_the_70b_teacher_and_its_8b_student_are_as_on_paper() -> None:
    plan, gigabytes = plan_of(BIG), 10**9
    ddp, both = plan.need("ddp"), plan.need("both")
    assert ddp.teacher / gigabytes == pytest.approx(141, abs=0.5)
    assert (ddp.student + ddp.gradients + ddp.optimizer) / gigabytes == pytest.approx(128, abs=1)
    assert (both.teacher + both.student + both.gradients + both.optimizer) / gigabytes == pytest.approx(34, abs=0.5)
    of_head = 4 * 128_256 * 4096 / gigabytes  # 2.1: float32
    bf16_of_head = of_head
    assert both.head / gigabytes == pytest.approx(of_head + bf16_of_head)
    assert 52 < (both.total - both.casts - bf16_of_head * gigabytes) / gigabytes < 60, "about 58 with activations"
    assert [name for name in plan.needs if plan.fits(name)] == ["both"]
    assert advise(plan).key == "fits_both"


def test_an_8b_teacher_and_its_1b_student_on_64_gpus_need_no_sharding() -> None:
    plan = plan_of("teacher=8B student=1B gpus=8x80 nodes=8")
    assert plan.need("ddp").buckets / 10**9 == pytest.approx(4.9, abs=0.05), "what DDP sums in a step"
    assert advise(plan)[::2] == ("fits_ddp", "ddp")


def test_the_most_rows_fit_and_one_more_does_not() -> None:
    plan = plan_of(BIG)
    most = plan.largest_batch("both")
    assert most > 1
    assert replace(plan, batch=most).fits("both")
    assert not replace(plan, batch=most + 1).fits("both")
    assert plan.largest_batch("ddp") == 0


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("teacher=3B student=1B", "fits_one"),
        (f"{BIG} batch=64", "less_rows"),
        ("teacher=70B student=8B gpus=6x80 length=4096", "recompute"),
        ("teacher=70B student=1B", "cache"),
        ("teacher=70B student=8B gpus=2x80", "more_nodes"),
        ("teacher=405B student=405B gpus=8x80", "too_large"),
    ],
)
def test_what_is_advised_fits_by_the_same_plan(words: str, key: str) -> None:
    plan, advice = plan_of(words), advise(plan_of(words))
    assert advice.key == key
    changed = {
        "fits_one": plan,
        "less_rows": replace(plan, batch=advice.values.get("rows", 1)),  # type: ignore[arg-type]
        "recompute": replace(plan, checkpointing=True),
        "cache": replace(plan, teacher=replace(plan.teacher, parameters=0, layer=0)),
        "more_nodes": replace(plan, nodes=advice.values.get("nodes", 1)),  # type: ignore[arg-type]
    }.get(key)
    if changed is not None and advice.arrangement is not None:
        assert changed.fits(advice.arrangement)
        assert key == "fits_one" or plan.simplest is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("techer=70B student=8B", "did you mean teacher"),
        ("teacher=70B", "no student"),
        ("teacher=70B student=", "student=…"),
        ("teacher=70B student=8B student=1B", "twice"),
        ("teacher=70B student=8B gpus=0x80", "gpus is no number of cards"),
        ("teacher=70B student=8B gpus=8x80000000", "gpus is no number of cards"),
        ("teacher=70B student=8B batch=-1", "batch is out of range"),
        ("teacher=70B student=8B length=²", "length is out of range"),
        ("teacher=70B student=8B nodes=99999999", "nodes is out of range"),
        ("teacher=70B student=8B dtype=bf61", "did you mean bf16"),
        ("teacher=70B student=8B optimizer=adam", "did you mean adamw"),
        ("teacher=0B student=8B", "size is out of range"),
        ("teacher=99999999B student=8B", "size is out of range"),
        ("teacher=qwen3-4x student=8B", "did you mean qwen3-4b"),
        ("teacher=nowhere/at/all student=8B", "no size, known model or model directory"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(words: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as info:
        plan_of(words)
    assert "\n" not in str(info.value)


def saved_bytes(model: Any, rows: int, is_half: bool) -> int:
    """Bytes that autograd saves of a forward pass, weights and what has their shape in another dtype left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    shapes = {shape for p in model.parameters() for shape in (tuple(p.shape), tuple(p.shape[::-1]))}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        at = tensor.untyped_storage().data_ptr()
        if at not in own and not (tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes):
            seen.setdefault(at, tensor)
        return tensor

    ids = torch.randint(0, 500, (rows, 50))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=is_half):
        model.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize(("kind", "config"), [(LlamaForCausalLM, LlamaConfig), (Qwen3ForCausalLM, Qwen3Config)])
def test_kept_bytes_are_those_that_autograd_saves(kind: Any, config: Any, is_half: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = kind(config(num_hidden_layers=3, vocab_size=500, **SIZES)).train()
    model.config.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.layer == sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    saved = (saved_bytes(model, 6, is_half) - saved_bytes(model, 3, is_half)) / 150
    assert shape.kept_bytes(is_half=is_half, checkpoints=False) == pytest.approx(saved, rel=0.01)


def test_gradient_checkpointing_keeps_a_layers_input_only() -> None:
    shape = PUBLISHED["llama-3.1-8b"]
    kept = [replace(shape, layers=layers).kept_bytes(is_half=True, checkpoints=True) for layers in (32, 33)]
    assert kept[1] - kept[0] == 4 * 4096


@pytest.fixture
def pair(tmp_path: Path) -> tuple[ModelShape, list[str]]:
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 16_000}
    for name, layers, hidden in (("teacher", 12, 768), ("student", 6, 512)):
        config = LlamaConfig(hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers, **sizes)
        config.save_pretrained(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("teacher", "student")]
    return shape_of(paths[1]), paths


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_real_step_takes_no_more_than_the_plan_and_not_much_less(
    pair: tuple[ModelShape, list[str]], dtype: str
) -> None:
    paths = pair[1]
    words = [sys.executable, "-m", "tests.doctor.measured_step", *paths, "4", "128", dtype, "2"]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)}
    done = subprocess.run(words, cwd=HOME, env=env, capture_output=True, text=True, check=True)
    taken = json.loads(done.stdout.splitlines()[-1])["taken"]
    need = plan_of(f"teacher={paths[0]} student={paths[1]} batch=4 length=128 dtype={dtype}").need("one").total
    assert 0.95 < need / taken < 1.4
