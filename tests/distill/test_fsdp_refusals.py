"""FSDP2: what cannot be sharded, or is parallel already, is refused in one line that says what to use instead."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from transformers import BitsAndBytesConfig

from apt_model.config import LessonConfig
from apt_model.distill.fsdp import shard_models
from apt_model.distill.inputs import Models
from apt_model.distill.setup import make_accelerator
from apt_model.errors import AptModelError
from apt_model.models.devices import accelerate_state_of_our_own
from apt_model.models.sharding import shard

Made = Callable[[nn.Module], Any]


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def tensor_parallel(model: Any) -> Any:
    return parallelize_module(model, init_device_mesh("cpu", (1,)), {"lm_head": ColwiseParallel()})


def sharded_here(model: Any) -> Any:
    shard(model, torch.device("cpu"))
    return model


def quantized(model: Any) -> Any:
    """As transformers marks one that bitsandbytes has quantized."""
    model.config.quantization_config = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    model.is_quantized = True
    return model


def spread(model: Any) -> Any:
    model.hf_device_map = {"": "cpu"}
    return model


@pytest.mark.parametrize(
    ("make", "settings", "expected"),
    [
        (
            partial(FullyShardedDataParallel, device_id=torch.device("cpu")),
            {},
            "wrapped in FSDP1, which is not offered.*set fsdp=ROLE",
        ),
        (fully_shard, {}, "sharded already, by fully_shard.*set fsdp=ROLE"),
        (tensor_parallel, {}, "tensor-parallel, which is not offered.*tp_plan.*set fsdp=ROLE"),
        (sharded_here, {}, "sharded, from a run before.*set fsdp=ROLE"),
        (nn.parallel.DistributedDataParallel, {"fsdp": "both"}, "inside DistributedDataParallel.*give its module"),
        (partial(torch.compile, backend="eager"), {"fsdp": "both"}, "a compiled model.*before torch.compile"),
        (quantized, {"fsdp": "both"}, "a quantized model.*load it plain, in bf16"),
        (spread, {"fsdp": "both"}, "one spread by device_map.*load it plain, in bf16"),
        (lambda model: model.to("meta"), {}, "has no weights.*load it"),
    ],
    ids=["fsdp1", "fsdp2", "tensor", "before", "ddp", "compiled", "quantized", "device_map", "meta"],
)
@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.filterwarnings("ignore:.*FSDP1? is deprecated:FutureWarning", "ignore:.*NO_SHARD:UserWarning")
def test_a_model_that_cannot_be_sharded_or_is_parallel_is_refused(
    group: None, make_model: Any, make: Made, settings: dict[str, Any], expected: str, role: str
) -> None:
    plain = {"student": make_model(), "teacher": make_model(seed=1)}
    refused(Models(**{**plain, role: make(plain[role])}), settings, expected.replace("ROLE", role))


def test_settings_that_do_not_go_with_shards_are_refused(make_model: Any) -> None:
    student, teacher = make_model(), make_model(seed=1)
    both = Models(student=student, teacher=teacher)
    refused(both, {"fsdp": "both", "teacher_device": "cpu"}, "devices of all processes.*leave teacher_device out")
    refused(both, {"fsdp": "student", "mixed_precision": "fp16"}, "mixed_precision=fp16.*set mixed_precision=bf16")
    used = torch.optim.AdamW(student.parameters())
    student(input_ids=torch.arange(4)[None], labels=torch.arange(4)[None]).loss.backward()
    used.step()
    with_used = Models(student=student, teacher=teacher, optimizer=used)
    refused(with_used, {"fsdp": "both"}, "must be new; got AdamW with state.*make a new one")
    refused(with_used, {"fsdp": "teacher"}, "shards over several processes")


def refused(models: Models, settings: dict[str, Any], expected: str) -> None:
    """Assert that these models and settings are refused with one line."""
    config = LessonConfig.from_dict(settings)
    with accelerate_state_of_our_own(), pytest.raises(AptModelError, match=expected) as raised:
        shard_models(models, config.train, make_accelerator(torch.device("cpu"), "no"))
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code in (2, 3)
