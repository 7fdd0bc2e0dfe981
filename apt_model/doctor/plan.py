"""Plan a distillation on paper: the memory of each arrangement of teacher and student on GPUs, and what fits.

Arithmetic on `shapes`, by the formulas of `need`. Knows nothing of models that are loaded, or of this machine.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from apt_model.config.translate import suggestion
from apt_model.doctor.need import FLOAT32, HALF, MOMENTS, MemoryNeed, head_bytes, logits_bytes
from apt_model.doctor.shapes import ModelShape, shape_of
from apt_model.errors import ConfigError, brief

Arrangement = Literal["one", "ddp", "teacher", "student", "both"]
ARRANGEMENTS: tuple[Arrangement, ...] = ("one", "ddp", "teacher", "student", "both")  # the simplest first
KEYS = ("teacher", "student", "gpus", "nodes", "batch", "length", "dtype", "optimizer", "checkpointing")
GB = 10**9
MOST = {"nodes": 10_000, "batch": 65_536, "length": 2**20}  # and at least 1
CARDS, MOST_GB = 1024, 1000  # of a node
CHOICES = {"dtype": ("bf16", "fp32"), "optimizer": tuple(MOMENTS), "checkpointing": ("no", "yes")}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A distillation on GPUs that need not be there.

    Attributes:
        teacher, student: their sizes. The student's weights are float32, the teacher's of `dtype`.
        gpus: of a node.
        card_bytes: memory of a GPU; one of 80 GB is taken as 80 · 10⁹ bytes: the 7 % that it has beyond are left to
            CUDA, NCCL and gaps between tensors.
        nodes: machines.
        batch, length: rows of a GPU at a time, tokens of a row.
        dtype: bf16 (the teacher's weights, and autocast) or fp32 (neither).
        optimizer: a key of MOMENTS.
        checkpointing: the student's gradient checkpointing, which a caller in Python switches on.
    """

    teacher: ModelShape
    student: ModelShape
    gpus: int
    card_bytes: int
    nodes: int = 1
    batch: int = 1
    length: int = 512
    dtype: str = "bf16"
    optimizer: str = "adamw"
    checkpointing: bool = False

    @property
    def world(self) -> int:
        """GPUs in all."""
        return self.gpus * self.nodes

    @cached_property
    def needs(self) -> dict[Arrangement, MemoryNeed]:
        """What a GPU needs in each arrangement; with a single GPU there is one."""
        return {name: self.need(name) for name in (ARRANGEMENTS if self.world > 1 else ARRANGEMENTS[:1])}

    def fits(self, name: Arrangement) -> bool:
        """Whether a GPU has what it needs."""
        return self.need(name).total <= self.card_bytes

    @property
    def simplest(self) -> Arrangement | None:
        """The simplest arrangement that fits and uses all GPUs."""
        return next((name for name in self.needs if (name != "one" or self.world == 1) and self.fits(name)), None)

    def need(self, name: Arrangement) -> MemoryNeed:
        """The memory of each GPU in an arrangement."""
        is_half, teacher, student = self.dtype == "bf16", self.teacher, self.student
        shares_teacher, shares_student = name in ("teacher", "both"), name in ("student", "both")
        of_teacher, of_student = (self.world if shares else 1 for shares in (shares_teacher, shares_student))
        stored, tokens = HALF if is_half else FLOAT32, self.batch * self.length
        cast_layers = (1 if self.checkpointing else student.layers) if is_half else 0
        gathered = (teacher.root + 2 * teacher.layer) * stored * shares_teacher
        gathered += (student.root + 2 * student.layer) * FLOAT32 * shares_student
        return MemoryNeed(
            teacher=teacher.parameters * stored // of_teacher,
            student=student.parameters * FLOAT32 // of_student,
            gradients=student.parameters * FLOAT32 // of_student,
            optimizer=student.parameters * MOMENTS[self.optimizer] // of_student,
            activations=student.kept_bytes(is_half=is_half, checkpoints=self.checkpointing) * tokens,
            casts=cast_layers * student.layer * HALF,
            head=head_bytes(student.head, is_half=is_half),
            logits=logits_bytes(min(teacher.vocabulary, student.vocabulary), tokens, is_half=is_half, chunk_rows=None),
            gathered=gathered,
            buckets=student.parameters * FLOAT32 if name in ("ddp", "teacher") else 0,
        )

    def largest_batch(self, name: Arrangement) -> int:
        """The most rows at a time that fit, up to the largest number that `batch` takes; 0: not even one."""
        low, high = 0, MOST["batch"]
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if replace(self, batch=middle).fits(name) else (low, middle - 1)
        return low


class PlanAdvice(NamedTuple):
    """What to do: the key of a sentence and its values, and the arrangement that then fits; None: none does."""

    key: str
    values: dict[str, str | int]
    arrangement: Arrangement | None = None


def advise(plan: Plan) -> PlanAdvice:
    """The simplest arrangement that fits, or the least change with which one does, tried out on the same plan."""
    if plan.simplest is not None:
        return PlanAdvice(f"fits_{plan.simplest}", {"rows": plan.largest_batch(plan.simplest)}, plan.simplest)
    sharded: Arrangement = "both" if plan.world > 1 else "one"
    if rows := plan.largest_batch(sharded):
        return PlanAdvice("less_rows", {"rows": rows}, sharded)
    without = replace(plan.teacher, parameters=0, layers=0, layer=0)
    for key, changed in (
        ("recompute", replace(plan, checkpointing=True)),
        ("cache", replace(plan, teacher=without)),
    ):
        if changed.simplest is not None:
            return PlanAdvice(key, {"rows": changed.largest_batch(changed.simplest)}, changed.simplest)
    for nodes in range(plan.nodes + 1, MOST["nodes"] + 1):
        if replace(plan, nodes=nodes).fits("both"):
            return PlanAdvice("more_nodes", {"nodes": nodes}, "both")
    purposes = plan.need(sharded).by_purpose()
    return PlanAdvice("too_large", {"part": max(purposes, key=lambda key: purposes[key])})


def parse_plan(words: Sequence[str]) -> Plan:
    """The plan of words such as teacher=70B student=8B gpus=8x80.

    Raises:
        ConfigError: a key or value that is not known, out of range, or missing. ModelError: a directory's config.
    """
    pairs = [word.partition("=")[::2] for word in words]
    for word, (key, value) in zip(words, pairs, strict=True):
        if key not in KEYS:
            close = suggestion(key, KEYS)
            fix = f"did you mean {close}?" if close in KEYS else None
            raise ConfigError("--plan has no such key", got=brief(word), expected=", ".join(KEYS), fix=fix)
        if not value:
            raise ConfigError("--plan needs a value for each key", got=brief(word), expected=f"{key}=…")
    given = dict(pairs)
    if len(given) < len(pairs):
        twice = next(key for key, _ in pairs if sum(other == key for other, _ in pairs) > 1)
        raise ConfigError("--plan names a key twice", got=twice, fix="give it once")
    if missing := [key for key in ("teacher", "student") if key not in given]:
        raise ConfigError(
            "--plan needs both models", got=f"no {' and no '.join(missing)}", fix="teacher=70B student=8B"
        )
    gpus, gigabytes = _cards(given.get("gpus", "1x80"))
    numbers = {key: _number(key, given[key]) for key in MOST if key in given}
    chosen = {key: _choice(key, given.get(key, choices[0])) for key, choices in CHOICES.items()}
    return Plan(
        teacher=shape_of(given["teacher"]),
        student=shape_of(given["student"]),
        gpus=gpus,
        card_bytes=round(gigabytes * GB),
        nodes=numbers.get("nodes", 1),
        batch=numbers.get("batch", 1),
        length=numbers.get("length", 512),
        dtype=chosen["dtype"],
        optimizer=chosen["optimizer"],
        checkpointing=chosen["checkpointing"] == "yes",
    )


def _cards(text: str) -> tuple[int, float]:
    """GPUs of a node, and the gigabytes of each: 8x80, 1x24, 4x47.5."""
    found = re.fullmatch(r"(\d{1,6})[x×](\d{1,6}(?:\.\d{1,3})?)(?:gb)?", text.casefold())
    if found is None or not (1 <= int(found[1]) <= CARDS and 1 <= float(found[2]) <= MOST_GB):
        expected = f"GPUs of a node (1 to {CARDS}) x gigabytes of each (1 to {MOST_GB}), such as 8x80"
        raise ConfigError("gpus is no number of cards", got=brief(text), expected=expected)
    return int(found[1]), float(found[2])


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MOST[key]):
        raise ConfigError(f"{key} is out of range", got=brief(text), expected=f"1 to {MOST[key]}")
    return int(text)


def _choice(key: str, text: str) -> str:
    if text not in CHOICES[key]:
        close = suggestion(text, CHOICES[key])
        fix = f"did you mean {close}?" if close in CHOICES[key] else None
        raise ConfigError(f"{key} is unknown", got=brief(text), expected=" or ".join(CHOICES[key]), fix=fix)
    return text
