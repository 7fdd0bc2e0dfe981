"""What a run learns from besides the teacher's last word on the data: its layers, and texts the student writes itself.

Brings together what the settings ask for; knows nothing of how either is done, or of losses.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from apt_model.config import LessonConfig
from apt_model.distill.batches import Window
from apt_model.distill.losses.layer_matching import Matcher
from apt_model.distill.on_policy import OnPolicy
from apt_model.distill.out_of_memory import explained_out_of_memory


class Beyond:
    """Layers that are compared, and texts of the student's own; often neither.

    Args:
        config: says which.
        student: not wrapped yet; moved to the accelerator's device where it is looked at.
        teacher: the model itself; None where only a cache of it is there, which has refused both by now.
        accelerator: knows the device, and casts.
        tokenizer: knows what ends a text.
        vocabulary: tokens that both models choose among, where that is known.

    Attributes:
        matcher: compares layers; None where that is not asked for.
        beside: what is trained with the student and is no part of it, likewise.

    Raises:
        ConfigError: a layer that is not there. ModelError: a model does not show its layers, or cannot write.
    """

    def __init__(
        self,
        config: LessonConfig,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        accelerator: Accelerator,
        tokenizer: Any,
        vocabulary: int | None,
    ) -> None:
        self._config, seed = config.distill, config.train.seed or 0
        self.matcher: Matcher | None = None
        self._on_policy: OnPolicy | None = None
        self._optimizer: Optimizer | None = None
        if teacher is not None and (self._config.hidden_weight or self._config.attention_weight):
            student.to(accelerator.device)
            self.matcher = Matcher(self._config, student, teacher, device=accelerator.device, seed=seed)
        if teacher is not None and self._config.on_policy:
            self._on_policy = OnPolicy(
                self._config,
                student=student,
                teacher=teacher,
                accelerator=accelerator,
                tokenizer=tokenizer,
                vocabulary=vocabulary,
                seed=seed,
            )
        self.beside = self.matcher if self.matcher is not None and list(self.matcher.parameters()) else None

    def join(self, optimizer: Optimizer) -> None:
        """What stands beside the student is trained with the optimizer's first parameters, until `leave`."""
        if self.beside is not None:
            self._optimizer = optimizer
            optimizer.param_groups[0]["params"].extend(self.beside.parameters())

    def leave(self) -> None:
        """The optimizer has the student's parameters alone again."""
        if self._optimizer is None or self.beside is None:
            return
        group, ours = self._optimizer.param_groups[0], set(self.beside.parameters())
        group["params"] = [parameter for parameter in group["params"] if parameter not in ours]
        for parameter in ours:
            self._optimizer.state.pop(parameter, None)
        self._optimizer = None

    def notices(self) -> Iterator[tuple[str, Mapping[str, str | int | float]]]:
        """What the reader should know of it, as (key, values)."""
        if self.matcher is not None:
            yield "notice.matching", {"pairs": ", ".join(f"{own}:{their}" for own, their in self.matcher.pairs)}
        if self._on_policy is not None:
            share, most = self._config.on_policy, self._config.on_policy_tokens
            yield "notice.on_policy", {"percent": f"{100 * share:g}", "tokens": most}

    def window(self, student: nn.Module, window: Window, *, step: int) -> Window:
        """The batches to learn from in optimizer step `step`: those of the data, or what the student makes of them."""
        if self._on_policy is None or not self._on_policy.is_due(step):
            return window
        with explained_out_of_memory(step, [batch for _, batch in window]):
            return [(index, self._on_policy.write(student, batch)) for index, batch in window]
