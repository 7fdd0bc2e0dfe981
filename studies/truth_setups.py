"""The set-ups of `studies.truth`: runs whose truth is known by how they are made.

Knows models, data and settings, and which advice would be true; knows nothing of what the lesson says.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from studies.truth_language import ROWS_OF_TRUTH, Language, gpt2, llama, taught

BATCH = 16
GOOD = ("excellent", "good_enough", "train_longer", "longer_to_tell", "laziest_topic")
UNFINISHED = ("train_longer", "longer_to_tell", "laziest_topic")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run whose truth is known.

    Attributes:
        name: what it is.
        advice: keys of advice that are true of it.
        settings: of the run; `max_steps` is its length.
        student: makes it, from (world, seed).
        teacher: makes the teacher's stand-in; None for the world's own.
        rows: training rows; None for as many as the run has steps for.
        labels: makes labels of ids; None for the ids.
        unseen: whether there is validation data.
        parrots: whether the student may be called a parrot.
        optimizer: one of its own.
    """

    name: str
    advice: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    student: Callable[["World", int], Any] = lambda world, seed: world.student(seed)
    teacher: Callable[["World", int], Any] | None = None
    rows: int | None = None
    labels: Callable[[Tensor, int], Tensor] | None = None
    unseen: bool = True
    parrots: bool = False
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None


class World:
    """A language with a teacher that knows it."""

    def __init__(self, seed: int, *, steps: int = 500) -> None:
        self.language = Language(seed)
        self.vocabulary = len(self.language.tokenizer)
        self.teacher = taught(
            llama(self.vocabulary, hidden=64, layers=2, seed=seed), self.language, steps=steps, seed=seed
        )
        self.truth = self.language.ids(self.language.rows(ROWS_OF_TRUTH, 10**6 + seed))

    def student(self, seed: int, *, hidden: int = 32, layers: int = 1, tied: bool = False) -> Any:
        """A fresh student."""
        return llama(self.vocabulary, hidden=hidden, layers=layers, seed=100 + seed, tied=tied)

    def batches(self, count: int, seed: int, labels: Callable[[Tensor, int], Tensor] | None) -> list[dict[str, Tensor]]:
        """Rows in batches."""
        ids = self.language.ids(self.language.rows(count, seed))
        meant = ids if labels is None else labels(ids, seed)
        parts = zip(ids.split(BATCH), meant.split(BATCH), strict=True)
        return [{"input_ids": some, "attention_mask": torch.ones_like(some), "labels": own} for some, own in parts]


class OtherRows(nn.Module):
    """A teacher that speaks of other rows: of each batch's rows, turned by one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_output_embeddings(self) -> nn.Module:
        """The head, by which the size of the vocabulary is known."""
        return self.model.get_output_embeddings()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Any) -> Any:
        """Logits of the rows, turned."""
        return self.model(input_ids=input_ids.roll(1, dims=0), **more)


def shuffled(ids: Tensor, seed: int) -> Tensor:
    """The labels of each row in another order."""
    order = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    return ids.gather(1, order)


def drawn(ids: Tensor, seed: int) -> Tensor:
    """Random labels."""
    return torch.randint(4, int(ids.max()) + 1, ids.shape, generator=torch.Generator().manual_seed(seed))


def untrained(world: World, seed: int) -> Any:
    """A teacher that knows nothing."""
    return llama(world.vocabulary, hidden=64, layers=2, seed=500 + seed)


def copied(world: World, seed: int) -> Any:
    """A student that is its teacher."""
    return copy.deepcopy(world.teacher)


def tied(world: World, seed: int) -> Any:
    """A fresh student with tied embeddings."""
    return world.student(seed, tied=True)


def of_gpt2(world: World, seed: int) -> Any:
    """A fresh GPT-2."""
    return gpt2(world.vocabulary, hidden=32, layers=1, seed=100 + seed)


def tiny(world: World, seed: int) -> Any:
    """A student of next to no capacity."""
    return world.student(seed, hidden=4)


def tiny_tied(world: World, seed: int) -> Any:
    """The same with tied embeddings."""
    return world.student(seed, hidden=4, tied=True)


def larger(world: World, seed: int) -> Any:
    """A fresh student as large as its teacher."""
    return world.student(seed, hidden=64, layers=2)


def of_other_rows(world: World, seed: int) -> Any:
    """The teacher, which hears other rows."""
    return OtherRows(world.teacher)


def nearly_taught(world: World, seed: int) -> Any:
    """A copy of the teacher, slightly disturbed."""
    student = copied(world, seed)
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in student.parameters():
            one.add_(0.2 * one.std() * torch.randn(one.shape, generator=dice))
    return student


def _plain_sgd(rate: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda student: torch.optim.SGD(student.parameters(), lr=rate)


RATE_0, TOO_HIGH = ("rate_up", "temperature_blunts", "teacher_unheard"), ("rate_down",)
T1 = {"temperature": 1.0, "learning_rate": 3e-3}
OVER = ("overfits_since", "from_memory", "labels_by_heart", "teacher_alone")
DISTURBED = ("excellent", "rate_down")  # a copy of the teacher that a step can only lead away from it
SETUPS = (
    Setup(name="rate 0", advice=RATE_0, settings={**T1, "learning_rate": 1e-12}),
    Setup(name="rate 0, T = 4", advice=RATE_0, settings={"temperature": 4.0, "learning_rate": 1e-12}),
    Setup(name="rate 0, tied", advice=RATE_0, settings={**T1, "learning_rate": 1e-12}, student=tied),
    Setup(name="rate 0, GPT-2", advice=RATE_0, settings={**T1, "learning_rate": 1e-12}, student=of_gpt2),
    Setup(name="rate 0, SGD", advice=RATE_0, settings=T1, optimizer=_plain_sgd(0.0)),
    Setup(name="rate 0, learned text only", advice=RATE_0, settings={**T1, "learning_rate": 1e-12}, unseen=False),
    Setup(name="rate far too low", advice=(*RATE_0, *UNFINISHED), settings={**T1, "learning_rate": 1e-6}),
    Setup(name="rate too low", advice=(*RATE_0, *UNFINISHED), settings={**T1, "learning_rate": 1e-4}),
    Setup(
        name="its own teacher, rate 0", advice=("excellent",), settings={**T1, "learning_rate": 1e-12}, student=copied
    ),
    Setup(name="its own teacher", advice=DISTURBED, settings={**T1, "learning_rate": 1e-4}, student=copied),
    Setup(name="its own teacher, T = 4", advice=DISTURBED, settings={"learning_rate": 1e-5}, student=copied),
    Setup(name="its own teacher, labels too", advice=DISTURBED, settings={**T1, "alpha": 0.3}, student=copied),
    Setup(name="nearly its teacher", advice=GOOD, settings={**T1, "learning_rate": 1e-3}, student=nearly_taught),
    Setup(name="random teacher", advice=("teacher_lost",), settings=T1, teacher=untrained),
    Setup(name="random teacher, T = 4", advice=("teacher_lost",), settings={"learning_rate": 3e-3}, teacher=untrained),
    Setup(name="random teacher, KD alone", advice=("teacher_lost",), settings={**T1, "alpha": 1.0}, teacher=untrained),
    Setup(name="teacher of other rows", advice=("teacher_lost",), settings=T1, teacher=of_other_rows),
    Setup(
        name="teacher of other rows, T = 4",
        advice=("teacher_lost",),
        settings={"learning_rate": 3e-3},
        teacher=of_other_rows,
    ),
    Setup(name="labels shuffled", advice=("teacher_lost",), settings=T1, labels=shuffled),
    Setup(
        name="labels shuffled, mostly labels", advice=("teacher_lost",), settings={**T1, "alpha": 0.3}, labels=shuffled
    ),
    Setup(name="labels random", advice=("teacher_lost",), settings=T1, labels=drawn),
    Setup(
        name="parrot, a short run",
        advice=(*UNFINISHED, "rate_up"),
        settings={**T1, "max_steps": 12},
        student=tied,
        parrots=True,
    ),
    Setup(name="parrot, a longer run", advice=GOOD, settings=T1, student=tied, parrots=True),
    Setup(name="parrot of GPT-2", advice=GOOD, settings=T1, student=of_gpt2, parrots=True),
    Setup(
        name="parrot, predicted cards",
        advice=GOOD,
        settings={**T1, "card_text": "predicted"},
        student=tied,
        parrots=True,
    ),
    Setup(name="overfitted", advice=OVER, settings={**T1, "alpha": 0.1, "max_steps": 400}, rows=32),
    Setup(name="overfitted, one batch", advice=OVER, settings={**T1, "alpha": 0.1, "max_steps": 400}, rows=16),
    Setup(name="overfitted, by half", advice=OVER, settings={**T1, "alpha": 0.5, "max_steps": 400}, rows=16),
    Setup(name="by heart, KD alone", advice=(*OVER, *GOOD), settings={**T1, "alpha": 1.0, "max_steps": 400}, rows=16),
    Setup(name="too small", advice=("too_small", *UNFINISHED), settings={**T1, "max_steps": 600}, student=tiny),
    Setup(
        name="too small, constant rate",
        advice=("too_small", *UNFINISHED),
        settings={**T1, "max_steps": 600, "lr_scheduler_type": "constant_with_warmup"},
        student=tiny,
    ),
    Setup(
        name="too small, tied", advice=("too_small", *UNFINISHED), settings={**T1, "max_steps": 600}, student=tiny_tied
    ),
    Setup(
        name="temperature 8",
        advice=("temperature_blunts", *UNFINISHED),
        settings={"temperature": 8.0, "learning_rate": 3e-4},
    ),
    Setup(
        name="temperature 20",
        advice=("temperature_blunts", *UNFINISHED, "rate_up"),
        settings={"temperature": 20.0, "learning_rate": 3e-4, "alpha": 1.0},
    ),
    Setup(name="temperature 4, the defaults", advice=("temperature_blunts", "rate_up", *UNFINISHED), settings={}),
    Setup(name="rate too high", advice=TOO_HIGH, settings={**T1, "learning_rate": 0.3}),
    Setup(name="rate far too high", advice=TOO_HIGH, settings={**T1, "learning_rate": 3.0}),
    Setup(
        name="rate too high for a good student", advice=TOO_HIGH, settings={**T1, "learning_rate": 0.1}, student=copied
    ),
    Setup(name="rate too high, tied", advice=TOO_HIGH, settings={**T1, "learning_rate": 0.3}, student=tied),
    Setup(name="good, long", advice=GOOD, settings={**T1, "max_steps": 500}),
    Setup(name="good, long, tied", advice=GOOD, settings={**T1, "max_steps": 500}, student=tied),
    Setup(name="good, long, GPT-2", advice=GOOD, settings={**T1, "max_steps": 500}, student=of_gpt2),
    Setup(name="good, long, KD alone", advice=GOOD, settings={**T1, "alpha": 1.0, "max_steps": 500}),
    Setup(name="good, long, T = 2", advice=GOOD, settings={**T1, "temperature": 2.0, "max_steps": 500}),
    Setup(name="good, long, reverse KL", advice=GOOD, settings={**T1, "loss_kind": "reverse_kl", "max_steps": 500}),
    Setup(name="good, long, learned text only", advice=GOOD, settings={**T1, "max_steps": 500}, unseen=False),
    Setup(name="good, short", advice=GOOD, settings={**T1, "max_steps": 100}),
    Setup(name="good, short, tied", advice=GOOD, settings={**T1, "max_steps": 100}, student=tied),
    Setup(name="good, a card a batch", advice=GOOD, settings={**T1, "sample_frequency": 1}),
    Setup(name="good, a larger student", advice=GOOD, settings={**T1, "max_steps": 300}, student=larger),
    Setup(name="labels alone", advice=(*GOOD, "teacher_unheard"), settings={**T1, "alpha": 0.0, "max_steps": 300}),
    Setup(name="two steps", advice=(*UNFINISHED, "rate_up"), settings={**T1, "max_steps": 2}),
)
