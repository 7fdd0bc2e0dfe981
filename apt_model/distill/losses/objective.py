"""The distillation objective: alpha · KD + beta · CE, as one record of settings. Knows nothing of logits."""

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from apt_model.config.sections import CrossTokenizer, DistillConfig, LossKind

T = TypeVar("T", float, Tensor)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """`alpha · T² · D(teacher, student) + beta · CE`: D between both softmaxes at temperature T, CE at 1.

    Attributes:
        temperature: T.
        alpha, beta: the weights of both terms.
        kind: which divergence D, see `divergences`.
        mixture: parameter of the kinds that mix both distributions; the kind's own default where None.
        cross_tokenizer: which distance takes D's place for a teacher with another vocabulary, see `cross_vocabulary`.
    """

    temperature: float
    alpha: float
    beta: float
    kind: LossKind = "forward_kl"
    mixture: float | None = None
    cross_tokenizer: CrossTokenizer = "refuse"

    def gain(self, divergence: T, ce_gap: T) -> T:
        """`alpha · T² · divergence + beta · ce_gap`; a term without a weight counts 0, even where it is infinite."""
        kd = self.alpha * self.temperature**2 * divergence
        return kd + self.beta * ce_gap if self.alpha and self.beta else kd if self.alpha else self.beta * ce_gap

    @classmethod
    def of(cls, config: DistillConfig) -> "Objective":
        """From the settings of a run."""
        return cls(
            temperature=config.temperature,
            alpha=config.alpha,
            beta=config.beta,
            kind=config.loss_kind,
            mixture=config.mixture,
            cross_tokenizer=config.cross_tokenizer,
        )
