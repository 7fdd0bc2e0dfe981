"""Which models of a run are sharded (FSDP2), and which cannot be: refused in one line, or split over the processes.

Knows settings, environment and models; knows nothing of how a model is sharded.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from accelerate import Accelerator
from accelerate.utils import is_compiled_module
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from apt_model.config.launchers import refuse_other_launchers, wants_fsdp
from apt_model.config.sections import TrainConfig
from apt_model.distill.inputs import Models
from apt_model.errors import ConfigError, ModelError
from apt_model.models.devices import is_bound
from apt_model.models.sharding import has_no_weights, is_sharded, receive, rest, shard
from apt_model.ranks.collective import gather_values

Role = Literal["student", "teacher"]
LAUNCH = "start with torchrun --nproc-per-node N, or leave fsdp out"


def shard_models(models: Models, config: TrainConfig, accelerator: Accelerator) -> None:
    """Shard what the settings name, in place; what else only the first process has the weights of, send to the others.

    An optimizer that was given goes on with the student's new parameters.

    Raises:
        ConfigError: settings, environment and processes do not go together.
        ModelError: a model cannot be sharded, or is parallel in a way that is not offered.
    """
    given: dict[Role, nn.Module] = {"student": models.student}
    if isinstance(models.teacher, nn.Module):
        given["teacher"] = models.teacher
    roles = wanted_roles(config, cached="teacher" not in given)
    for role, model in given.items():
        _refuse_other_parallelism(model, role, shards=role in roles)
        if accelerator.is_main_process and has_no_weights(model):
            what, fix = f"the {role} has no weights", "load it; on the first process of several it must have them"
            raise ModelError(what, got="parameters or buffers on the meta device", fix=fix)
    if is_bound(models.student) and any(one.is_meta for one in models.student.parameters()):
        got = "a part on a disk, or lent to another device"
        raise ModelError("the student cannot be trained where device_map puts it", got=got, fix="load it without")
    for role in roles:
        _refuse_unfit(given[role], role, config)
        _refuse_used(models.optimizer if role == "student" else None, given[role])
    if roles and accelerator.num_processes == 1:
        raise ConfigError(f"fsdp={config.fsdp} shards over several processes", got="1 process", fix=LAUNCH)
    for role, model in given.items():
        optimizer = models.optimizer if role == "student" else None
        if role in roles:
            with _goes_on(optimizer, model):
                rest(model)
                shard(model, accelerator.device)
        elif any(gather_values(has_no_weights(model))):
            with _goes_on(optimizer, model):
                receive(model, accelerator.device)


def wanted_roles(config: TrainConfig, *, cached: bool) -> Sequence[Role]:
    """The roles of the models to shard: by the setting, or else by what accelerate's launcher was told.

    Raises:
        ConfigError: a teacher that is a cache; what is not offered, in accelerate's environment.
    """
    refuse_other_launchers(os.environ)
    if config.fsdp is None:
        return () if not wants_fsdp(os.environ) else ("student",) if cached else ("student", "teacher")
    if cached and config.fsdp in ("teacher", "both"):
        fix = "leave fsdp out" if config.fsdp == "teacher" else "set fsdp=student"
        raise ConfigError(f"fsdp={config.fsdp} shards the teacher, but that is a cache", fix=fix)
    chosen: dict[str, Sequence[Role]] = {"student": ("student",), "teacher": ("teacher",)}
    return ("student", "teacher") if config.fsdp == "both" else chosen.get(config.fsdp, ())


def _refuse_other_parallelism(model: nn.Module, role: str, *, shards: bool) -> None:
    """Refuse a model that was made parallel elsewhere: FSDP1, DeepSpeed, tensor parallel, or sharded by its owner."""
    instead = f"load a plain model on every process, and set fsdp={role} to shard it"
    names = {type(module).__name__ for module in model.modules()}
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise ModelError(f"the {role} is wrapped in FSDP1, which is not offered", fix=instead)
    if "DeepSpeedEngine" in names:
        raise ModelError(f"the {role} is a DeepSpeed engine, which is not offered", fix=instead)
    if is_sharded(model):
        if not shards:
            fix = f"set fsdp={role}, or both"
            raise ModelError(f"the {role} is sharded, from a run before", got="no fsdp for it in the settings", fix=fix)
    elif any(isinstance(module, FSDPModule) for module in model.modules()):
        raise ModelError(f"the {role} is sharded already, by fully_shard", fix=instead)
    elif any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        got = "parameters split by tp_plan or distribute_tensor"
        raise ModelError(f"the {role} is tensor-parallel, which is not offered", got=got, fix=instead)


def _refuse_unfit(model: nn.Module, role: Role, config: TrainConfig) -> None:
    """Refuse a model that cannot be sharded, or not with these settings."""
    what = f"the {role} cannot be sharded"
    if is_bound(model):
        got = "a quantized model" if getattr(model, "is_quantized", False) else "one spread by device_map"
        raise ModelError(what, got=got, fix="load it plain, in bf16, or leave it out of fsdp")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ModelError(what, got=f"one inside {type(model).__name__}", fix=f"give its module, and fsdp={role}")
    if is_compiled_module(model):
        raise ModelError(what, got="a compiled model", fix="give the model as it was before torch.compile")
    if role == "teacher" and config.teacher_device is not None:
        got = f"teacher_device={config.teacher_device}"
        raise ConfigError(
            "a sharded teacher is on the devices of all processes", got=got, fix="leave teacher_device out"
        )
    if role == "student" and config.mixed_precision == "fp16":
        raise ConfigError(what, got="mixed_precision=fp16", expected="bf16 or no", fix="set mixed_precision=bf16")


def _refuse_used(optimizer: Optimizer | None, student: nn.Module) -> None:
    """Refuse an optimizer whose state is of whole parameters.

    Raises:
        ModelError: it has taken steps already.
    """
    if optimizer is not None and optimizer.state and not is_sharded(student):
        got = f"{type(optimizer).__name__} with state of {len(optimizer.state)} parameters"
        raise ModelError("an optimizer of a sharded student must be new", got=got, fix="make a new one")


@contextmanager
def _goes_on(optimizer: Optimizer | None, model: nn.Module) -> Iterator[None]:
    """Context manager within which a model gets other parameters: its optimizer goes on with those."""
    before = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimizer.param_groups if optimizer is not None else []
    names = [[before.get(id(one)) for one in group["params"]] for group in groups]
    yield
    after = dict(model.named_parameters())
    for group, own in zip(groups, names, strict=True):
        group["params"] = [one if name is None else after[name] for name, one in zip(own, group["params"], strict=True)]
