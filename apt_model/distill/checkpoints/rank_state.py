"""What each rank of a run has of its own in a checkpoint: generators, place in its data, state within its models.

Knows how the parts of several ranks lie beside each other in a checkpoint's files; knows nothing of the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from apt_model.data.rng import Tensors, below, joined
from apt_model.distill.checkpoints.generators import RestoredGenerators
from apt_model.distill.checkpoints.optimizer_state import optimizer_state
from apt_model.distill.checkpoints.progress import OF_A_RANK
from apt_model.distill.checkpoints.run_state import RunState
from apt_model.models.inner_state import read_inner, set_inner
from apt_model.models.sharding import gathered, on_first


@dataclass(frozen=True, kw_only=True)
class RankState:
    """The state of one rank.

    Attributes:
        plain: JSON values.
        ranks: how many there were.
        generators, inner: tensors of its random generators, and of what its models hold beside their weights.
    """

    plain: Mapping[str, Any]
    ranks: int = 1
    generators: Tensors
    inner: Tensors

    @classmethod
    def of(cls, run: RunState) -> "RankState":
        """The state of this rank now."""
        now, now_tensors = run.data.read(run.device)
        then, then_tensors = run.at_epoch_start or run.data.read(run.device)  # tensors of its own: none is saved twice
        generators = joined({"now": now_tensors, "epoch": then_tensors})
        inner = {role: read_inner(model) for role, model in run.models().items()}
        plain = {
            "generators": {"now": now, "epoch": then, "tensors": sorted(generators)},
            "inner": {role: numbers for role, (numbers, _) in inner.items()},
            "place": {name: getattr(run.progress, name) for name in OF_A_RANK},
            "stream": None if run.progress.finished else run.stream.state_dict(),
        }
        return cls(plain=plain, generators=generators, inner=joined({role: some for role, (_, some) in inner.items()}))

    @classmethod
    def read(cls, rank: int, plain: Sequence[Mapping[str, Any]], generators: Tensors, inner: Tensors) -> "RankState":
        """The state that a rank resumes with; of more ranks than the checkpoint had, the others share theirs.

        Raises:
            LookupError: there is none.
        """
        rank %= len(plain) or 1
        own = str(rank)
        return cls(plain=plain[rank], ranks=len(plain), generators=below(own, generators), inner=below(own, inner))

    def restore(self, run: RunState, checkpoint: Path, builds: Mapping[str, Any]) -> RestoredGenerators:
        """Restore all but the generators, which are returned, to be set later.

        Args:
            run: whose models are as they were built, or as `builds` says, and hold their weights.
            checkpoint: for messages.
            builds: the identity in the checkpoint.

        Raises:
            LookupError, TypeError, ValueError: something is missing, or does not fit.
        """
        for role, model in run.models().items():
            if builds.get(f"the {role}'s build") == run.identity.get(f"the {role}'s build"):
                set_inner(model, self.plain["inner"][role], below(role, self.inner))
        run.progress.load_place(self.plain["place"])
        stream = self.plain.get("stream")  # not in a checkpoint from before streams had a place
        return RestoredGenerators.of(checkpoint, self.ranks, self.plain["generators"], self.generators, stream)


@dataclass(frozen=True, kw_only=True)
class WholeState:
    """What all ranks have in common: the same on each, or put together from their shards for the one that writes.

    Attributes:
        student: plain; on other ranks than the first, a sharded one is left as it is.
        beside: tensors of what is trained beside it.
        optimizer, settings: its tensors, and the rest of its state.
    """

    student: nn.Module
    beside: Tensors
    optimizer: Tensors
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, run: RunState) -> "WholeState":
        """That of a run; all ranks call it."""
        beside = {} if run.beside is None else run.beside.state_dict()
        tensors, settings = optimizer_state(run.optimizer)
        return cls(
            student=gathered(run.student) or run.student,
            beside={name: on_first(tensor) for name, tensor in beside.items()},
            optimizer=tensors,
            settings=settings,
        )


def side_by_side(states: Sequence[RankState]) -> tuple[list[Mapping[str, Any]], Tensors, Tensors]:
    """The states of all ranks, as (JSON values by rank, tensors of the generators, tensors of the models)."""
    plain = [one.plain for one in states]
    generators = joined({str(rank): one.generators for rank, one in enumerate(states)})
    return plain, generators, joined({str(rank): one.inner for rank, one in enumerate(states)})
