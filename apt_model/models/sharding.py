"""FSDP2: split a model's parameters over all processes, block by block, and put the plain model together again.

Knows torch's `fully_shard`; knows nothing of who is teacher and student. Everything here that is marked "collective"
must be called by all processes, at the same place.
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from apt_model.errors import ModelError
from apt_model.models.devices import is_bound
from apt_model.models.inner_state import read_inner, set_inner
from apt_model.models.lora import has_adapters
from apt_model.ranks.collective import gather_values

# Models sharded here → the same as a plain one whose parameters are on the meta device: a shape to be filled.
_PLAIN: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has split this model."""
    return model in _PLAIN


def class_of(module: nn.Module) -> type:
    """A module's class, without what `fully_shard` puts before it."""
    return next(kind for kind in type(module).__mro__ if not issubclass(kind, FSDPModule))


def shard(model: nn.Module, device: torch.device) -> None:
    """Split a model's parameters over all processes, in place. Collective.

    The first process's weights count; the others may give a model on the meta device, and nobody ever holds more than
    its shards and one block. The blocks are gathered one after the other during a forward pass, and freed behind it.
    Parameters keep their `requires_grad`, but are other objects afterwards.

    Args:
        model: plain; one that is sharded already stays as it is.
        device: of this process.

    Raises:
        ModelError: the processes were given different models, or adapters that are outside of the model within.
    """
    if is_sharded(model):
        return
    outside = {*model.parameters()} - {*blocks_and_rest(model)[-1].parameters()}
    if outside:
        fix = "use LoRA, or another method that changes layers"
        raise ModelError("adapters outside of the model's layers cannot be sharded", got=f"{len(outside)}", fix=fix)
    _refuse_different(model)
    plain, mesh = _on_meta(model), init_device_mesh(device.type, (dist.get_world_size(),))
    for unit in blocks_and_rest(model):
        _receive(unit, device)
        _split(unit, mesh)
    # Which unit is the root is else found out by the first forward pass, and one of a block alone would take the root's
    # place.
    fully_shard.state(blocks_and_rest(model)[-1])._lazy_init()  # type: ignore[attr-defined]
    _PLAIN[model] = plain


def receive(model: nn.Module, device: torch.device) -> None:
    """Put the first process's weights and buffers into a model, in place, on every process. Collective.

    Args:
        model: not sharded; those of other processes may be on the meta device. Its parameters are other objects
            afterwards.
        device: of this process.

    Raises:
        ModelError: the processes were given different models.
    """
    _refuse_different(model)
    _receive(model, device)


def has_no_weights(model: nn.Module) -> bool:
    """Whether any of a model's parameters and buffers is on the meta device: a shape without values.

    accelerate puts it there too while it lies on a disk, and brings it for each forward pass.
    """
    return not is_bound(model) and any(one.is_meta for one in chain(model.parameters(), model.buffers()))


def shard_layer(layer: nn.Module, device: torch.device) -> None:
    """Split a single layer that is part of no sharded model. Collective."""
    _split(layer, init_device_mesh(device.type, (dist.get_world_size(),)))


def _split(unit: nn.Module, mesh: DeviceMesh) -> None:
    """Split a unit; its gradients are sums over the processes, not means: the loss is divided by all their labels."""
    sharded = fully_shard(unit, mesh=mesh)
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)


def blocks_and_rest(model: nn.Module) -> list[nn.Module]:
    """The modules whose parameters are gathered together: each block by itself, then the model with all the rest.

    Blocks are what stands in the outermost `nn.ModuleList`s, unless they share a parameter with the rest of the model,
    or have none. Of a model with adapters the last unit is the model within: `generate` calls nothing else.
    """
    found = list(_in_lists(model))
    owners: dict[nn.Parameter, set[nn.Module | None]] = {}
    inside = {module: block for block in found for module in block.modules()}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(inside.get(module))
    shared = {block for several in owners.values() if len(several) > 1 for block in several}
    last = model.get_base_model() if has_adapters(model) else model  # type: ignore[operator]
    return [*(block for block in found if block not in shared and any(True for _ in block.parameters())), last]


def _in_lists(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _in_lists(child)


def _refuse_different(model: nn.Module) -> None:
    if has_no_weights(model) and callable(tie := getattr(model, "tie_weights", None)):
        tie()  # `.to("meta")` makes two tensors of a tied one
    named = chain(model.named_parameters(), model.named_buffers())
    own = [(name, str(one.dtype), tuple(one.shape)) for name, one in named]
    every = gather_values(own)
    for rank, other in enumerate(every):
        if other != every[0]:
            differ = next((pair for pair in zip(every[0], other, strict=False) if pair[0] != pair[1]), None)
            got = f"{differ[1]} on process {rank}, {differ[0]} on 0" if differ else f"{len(other)} on process {rank}"
            fix = "make the same model on every process"
            raise ModelError("the processes were given different models", got=got, fix=fix)


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers are on the meta device; those that are tied stay so."""
    memo: dict[int, Any] = {id(one): one.detach().to("meta") for one in model.buffers()}
    for one in model.parameters():
        memo[id(one)] = nn.Parameter(one.detach().to("meta"), requires_grad=one.requires_grad)
    return deepcopy(model, memo)


def _receive(unit: nn.Module, device: torch.device) -> None:
    """Put the first process's tensors, on this process's device, in the place of those not sharded yet."""
    new: dict[int, Tensor] = {}
    for holder, name, old in _tensors(unit):
        if isinstance(old, DTensor):
            continue
        if id(old) not in new:
            tensor = old.detach().to(device).contiguous() if dist.get_rank() == 0 else _empty(old, device)
            dist.broadcast(tensor.reshape(-1).view(torch.uint8), src=0)
            is_parameter = isinstance(old, nn.Parameter)
            new[id(old)] = nn.Parameter(tensor, requires_grad=old.requires_grad) if is_parameter else tensor
        setattr(holder, name, new[id(old)])


def _empty(like: Tensor, device: torch.device) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device=device)


def _tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """(module, name, tensor) of each parameter and buffer, wherever it is tied to."""
    for module in model.modules():
        for name, one in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            yield module, name, one


def rest(model: nn.Module) -> None:
    """Free what was gathered of a sharded model: what is gathered next is up to date. No communication."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on every process; any other tensor as it is. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(full: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a whole tensor, split as `like` is; the tensor itself where that is no sharded one."""
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def on_first(tensor: Tensor) -> Tensor:
    """A tensor on the CPU; of a sharded one the whole on the first process, and nothing (0) on others. Collective."""
    full = whole(tensor.detach())
    if not isinstance(tensor, DTensor):
        return full.cpu()
    if dist.get_rank() != 0:
        return full.new_empty(0, device="cpu")
    is_padded = full.untyped_storage().nbytes() != full.nbytes  # where rows do not divide by processes
    return full.clone().cpu() if is_padded else full.cpu()


def fill(model: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy whole tensors, one after the other, into the shards of a model; each process has all of them.

    Raises:
        ValueError: names or shapes differ; of tied parameters one name is enough, of adapters those that are trained.
    """
    rest(model)
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    known = dict(every)
    needed = (pair for pair in model.named_parameters() if pair[1].requires_grad or not has_adapters(model))
    left = {id(one): name for name, one in needed}
    for name, full in tensors:
        if name not in known or known[name].shape != full.shape:
            raise ValueError(f"{name} {tuple(full.shape)} does not fit the model")
        with torch.no_grad():
            known[name].copy_(part_of(full, known[name]))
        left.pop(id(known[name]), None)
    if left:
        raise ValueError(f"{len(left)} parameters are missing, {min(left.values())} among them")


def gathered(model: nn.Module) -> nn.Module | None:
    """A plain copy of a sharded model on the CPU of the first process, None on the others. Collective.

    A model that is not sharded is returned as it is, on every process.
    """
    if not is_sharded(model):
        return model
    rest(model)
    own = [*model.named_parameters(), *model.named_buffers()]
    found: dict[str, Tensor] = {}
    for name, tensor in own:
        found[name] = on_first(tensor)
    if dist.get_rank() != 0:
        return None
    plain = deepcopy(_PLAIN[model])
    names = {id(one): name for name, one in [*plain.named_parameters(), *plain.named_buffers()]}
    new = {
        key: nn.Parameter(found[name], requires_grad=tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else found[name]
        for (key, name), (_, tensor) in zip(names.items(), own, strict=True)
    }
    for holder, name, old in list(_tensors(plain)):
        setattr(holder, name, new[id(old)])
    set_inner(plain, *read_inner(model))
    if hasattr(model, "generation_config"):
        plain.generation_config = model.generation_config
    return plain.train(model.training)
