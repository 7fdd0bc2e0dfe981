"""Which of how many processes this one is: as a launcher says in the environment, or a process group.

Imports nothing that takes time. Knows names of environment variables; knows nothing of how processes speak.
"""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from apt_model.errors import ConfigError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # as torchrun and most others say it, and torch and accelerate read it
NAMES_OF_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")  # of a step: a batch script itself has none
PORT = "29500"  # torch's own, where a launcher names none


class Place(NamedTuple):
    """The number of a rank, and of how many."""

    rank: int
    size: int


def place() -> Place:
    """This process's rank and the number of ranks; alone without a launcher and a process group.

    Slurm's tasks are ranks of one run only where MASTER_ADDR says where they meet: else each may do work of its own.

    Raises:
        ConfigError: the launcher's numbers name no process.
    """
    for number, count, _ in (NAMES, NAMES_OF_SLURM):
        if number in os.environ and count in os.environ and (number == "RANK" or "MASTER_ADDR" in os.environ):
            return _placed(number, count)
    if has_group():
        import torch.distributed as dist

        return Place(dist.get_rank(), dist.get_world_size())
    return Place(0, 1)


def likely_place() -> Place:
    """As `place`, for those who come before anybody can say what is wrong: alone where the numbers name no process."""
    try:
        return place()
    except ConfigError:
        return Place(0, 1)


def local_rank() -> int:
    """This process's number among those of its machine, from 0."""
    return next((integer_of(names[2]) for names in (NAMES, NAMES_OF_SLURM) if names[2] in os.environ), 0)


def share_place() -> None:
    """Say in torch's own words what Slurm has said in its own, so that torch and accelerate form their group by it."""
    if NAMES[0] not in os.environ and NAMES_OF_SLURM[0] in os.environ and place().size > 1:
        os.environ.update({ours: os.environ[theirs] for ours, theirs in zip(NAMES, NAMES_OF_SLURM, strict=True)})
        os.environ.setdefault("MASTER_PORT", PORT)


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of its own that a rank starts: no rank."""
    return {name: value for name, value in environment.items() if name not in (*NAMES, *NAMES_OF_SLURM)}


def has_group() -> bool:
    """Whether there is a process group; without torch there is none."""
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and bool(dist.is_initialized())


def integer_of(name: str) -> int:
    """An environment variable's integer.

    Raises:
        ConfigError: it is none.
    """
    try:
        return int(os.environ[name])
    except ValueError as error:
        raise ConfigError(f"{name} in the environment", got=repr(os.environ[name]), expected="an integer") from error


def _placed(number: str, count: str) -> Place:
    found = Place(integer_of(number), integer_of(count))
    if not 0 <= found.rank < found.size:
        got, expected = f"{number}={found.rank}, {count}={found.size}", f"{number} from 0 to {count} - 1"
        raise ConfigError("the launcher's numbers name no process", got=got, expected=expected)
    return found
