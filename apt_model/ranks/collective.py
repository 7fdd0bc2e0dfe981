"""Sums, votes and exchanges over the ranks of a run, by torch.distributed's process group.

With one process each returns what it was given. All ranks call each in the same order.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from apt_model.ranks.group import ranks
from apt_model.ranks.place import has_group

T = TypeVar("T")


def world_size() -> int:
    """Number of processes in the group; 1 without one."""
    return dist.get_world_size() if has_group() else 1


def rank() -> int:
    """This process's number in the group, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """A tensor summed over all ranks: on the CPU in the order of the ranks, elsewhere in the backend's.

    In that order, ranks that learn from a batch each add up as one process does that accumulates over these batches:
    floats give the same bytes.
    """
    size = world_size()
    if size == 1:
        return tensor
    if tensor.device.type != "cpu":
        total = tensor.clone()
        dist.all_reduce(total)
        return total
    parts = [torch.empty_like(tensor) for _ in range(size)]
    with ranks().waiting("add up a tensor"):
        dist.all_gather(parts, tensor.contiguous())
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def sum_gradients(student: nn.Module) -> None:
    """Let DDP's gradients be sums over the ranks, not means: the loss is divided by the labels of all of them."""
    if not isinstance(student, DistributedDataParallel):
        return

    def summed(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        buffer: Tensor = bucket.buffer()
        if buffer.device.type != "cpu":
            reduced: torch.futures.Future[list[Tensor]] = dist.all_reduce(buffer, async_op=True).get_future()
            return reduced.then(lambda done: done.value()[0])
        found: torch.futures.Future[Tensor] = torch.futures.Future()
        found.set_result(sum_over_ranks(buffer))
        return found

    student.register_comm_hook(None, summed)


def sum_unwrapped_gradients(module: nn.Module) -> None:
    """Sum over the ranks what no wrapper sums: gradients of a module beside the student, but for sharded ones."""
    for parameter in module.parameters():
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            parameter.grad = sum_over_ranks(parameter.grad)


def gather_rows(numbers: list[int], device: torch.device) -> list[list[int]]:
    """The same number of integers from each rank, by rank."""
    if world_size() == 1:
        return [numbers]
    own = torch.tensor(numbers, device=device)
    rows = [torch.empty_like(own) for _ in range(world_size())]
    with ranks().waiting("count and vote"):
        dist.all_gather(rows, own)
    found: list[list[int]] = torch.stack(rows).tolist()
    return found


def gather_values(value: T) -> list[T]:
    """A value of each rank, by rank, on every rank: states of generators and the like, small."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with ranks().waiting("gather the values of all"):
        dist.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    values = [value]
    with ranks().waiting("hear rank 0"):
        dist.broadcast_object_list(values, src=0)
    return values[0]
