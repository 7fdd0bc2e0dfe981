"""Contenders from other libraries, each on its own public API, as its own trainer or recipe calls it.

Each is imported only when it is built: one that is not installed, or does not run here, is listed with the reason.
Where an API has no CE term or no T², the contender has none either: it has less to do, and the table says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from benchmarks.sizes import Pair
from benchmarks.step.contenders import Contender, hidden_states, teacher_logits
from benchmarks.step.objective import IGNORED, TASK, LossFunction, StepObjective


def _trl_gkd(pair: Pair, beta: float) -> LossFunction:
    from trl.experimental.gkd import GKDTrainer

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        spoken, answered = teacher_logits(pair, ids), pair.student(ids).logits
        found: Tensor = GKDTrainer.generalized_jsd_loss(
            student_logits=answered[:, :-1],
            teacher_logits=spoken[:, :-1],
            labels=labels[:, 1:],
            beta=beta,
            temperature=TASK.temperature,
        )
        return found

    return loss


def _trl_chunked(pair: Pair) -> LossFunction:
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        hidden, spoken = (states[:, :-1].flatten(0, 1) for states in hidden_states(pair, ids))
        student, teacher = pair.student.lm_head, pair.teacher.lm_head
        divergence, _ = ChunkedDivergenceFunction.apply(
            hidden, student.weight, None, spoken, teacher.weight, None, 0.0, TASK.temperature
        )
        counts = labels[:, 1:].flatten() != IGNORED
        found: Tensor = divergence.masked_fill(~counts, 0).sum() / counts.sum()
        return found

    return loss


def _torchtune(pair: Pair, *, chunked: bool = True, compiled: bool = False) -> LossFunction:
    from torchtune.modules.loss import CEWithChunkedOutputLoss, ForwardKLLoss, ForwardKLWithChunkedOutputLoss
    from torchtune.training import compile_loss

    if not chunked:
        whole = ForwardKLLoss()

        def loss(ids: Tensor, labels: Tensor) -> Tensor:
            spoken = teacher_logits(pair, ids)[:, :-1].flatten(0, 1)
            answered = pair.student(ids).logits[:, :-1].flatten(0, 1)
            targets = labels[:, 1:].flatten()
            return 0.5 * F.cross_entropy(answered, targets) + 0.5 * whole(answered, spoken, targets)

        return loss

    kd_loss, ce_loss = ForwardKLWithChunkedOutputLoss(), CEWithChunkedOutputLoss()
    if compiled:
        kd_loss, ce_loss = compile_loss(kd_loss, verbose=False), compile_loss(ce_loss, verbose=False)

    def chunks(states: Tensor, head: nn.Linear) -> list[Tensor]:
        return [head(chunk) for chunk in states.chunk(kd_loss.num_output_chunks, dim=1)]

    def chunked_loss(ids: Tensor, labels: Tensor) -> Tensor:
        hidden, spoken = hidden_states(pair, ids)
        with torch.no_grad():
            teacher = chunks(spoken, pair.teacher.lm_head)
        student = chunks(hidden, pair.student.lm_head)
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        found: Tensor = 0.5 * ce_loss(student, targets) + 0.5 * kd_loss(student, teacher, targets)
        return found

    return chunked_loss


def _liger(pair: Pair, *, chunk: int, compiled: bool) -> LossFunction:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    criterion = LigerFusedLinearJSDLoss(
        weight_hard_loss=TASK.ce_weight,
        weight_soft_loss=TASK.kd_weight,
        beta=0.0,
        temperature=TASK.temperature,
        compiled=compiled,
        chunk_size=chunk,
    )

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        hidden, spoken = (states[:, :-1].flatten(0, 1) for states in hidden_states(pair, ids))
        targets = labels[:, 1:].flatten()
        found: Tensor = criterion(hidden, pair.student.lm_head.weight, spoken, pair.teacher.lm_head.weight, targets)
        return found

    return loss


def _modelopt(pair: Pair) -> LossFunction:
    from modelopt.torch.distill import LogitsDistillationLoss

    criterion = LogitsDistillationLoss(temperature=TASK.temperature, reduction="none")
    alpha = TASK.kd_weight / TASK.temperature**2  # its T² is inside

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        spoken, answered = teacher_logits(pair, ids), pair.student(ids, labels=labels)
        counts = labels[:, 1:] != IGNORED
        kd = (criterion(answered.logits[:, :-1], spoken[:, :-1]) * counts).sum() / counts.sum()
        found: Tensor = alpha * kd + TASK.ce_weight * answered.loss
        return found

    return loss


def _textbrewer(pair: Pair) -> LossFunction:
    from textbrewer.losses import kd_ce_loss

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        spoken, answered = teacher_logits(pair, ids), pair.student(ids, labels=labels)
        kd = kd_ce_loss(answered.logits[:, :-1], spoken[:, :-1], temperature=TASK.temperature)
        found: Tensor = TASK.kd_weight * kd + TASK.ce_weight * answered.loss
        return found

    return loss


def _distillkit(pair: Pair) -> LossFunction:
    raise ModuleNotFoundError("DistillKit is not on PyPI (it installs from its repository only)")


@contextmanager
def _told_onednn(pair: Pair) -> Iterator[None]:
    """What anybody can tell torch by hand: all float32 products by oneDNN, the small ones of attention too."""
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = "none"


KL_ALONE, JSD_ALONE = (StepObjective(kd=kind, kd_weight=1, ce_weight=0) for kind in ("KL", "JSD"))
TUNE = StepObjective(kd="soft CE", temperature=1, kd_weight=0.5, ce_weight=0.5)
BREWER = StepObjective(kd="soft CE", masks=False)

PEERS = [
    Contender(
        name="trl-kl",
        build=lambda pair: _trl_gkd(pair, 0.0),
        objective=KL_ALONE,
        package="trl",
        note="`GKDTrainer.generalized_jsd_loss`, beta 0",
    ),
    Contender(
        name="trl-jsd",
        build=lambda pair: _trl_gkd(pair, 0.5),
        objective=JSD_ALONE,
        package="trl",
        note="the same, beta 0.5, its default",
    ),
    Contender(
        name="trl-chunked",
        build=_trl_chunked,
        objective=KL_ALONE,
        package="trl",
        note="`ChunkedDivergenceFunction`, what `DistillationTrainer` runs; beta 0",
    ),
    Contender(
        name="torchtune",
        build=lambda pair: _torchtune(pair, chunked=False),
        objective=TUNE,
        package="torchtune",
        note="`ForwardKLLoss`",
    ),
    Contender(
        name="torchtune-chunked",
        build=_torchtune,
        objective=TUNE,
        package="torchtune",
        note="`ForwardKLWithChunkedOutputLoss` and `CEWithChunkedOutputLoss`, 8 chunks",
    ),
    Contender(
        name="torchtune-compiled",
        build=lambda pair: _torchtune(pair, compiled=True),
        objective=TUNE,
        package="torchtune",
        note="the same through its `compile_loss`",
    ),
    *(
        Contender(
            name=f"liger-{chunk}{'-compiled' if compiled else ''}",
            build=lambda pair, chunk=chunk, compiled=compiled: _liger(pair, chunk=chunk, compiled=compiled),
            package="liger-kernel",
            note=f"`LigerFusedLinearJSDLoss`, beta 0, chunk {chunk}{', compiled' if compiled else ''}",
        )
        for chunk in (1024, 256)
        for compiled in (False, True)
    ),
    Contender(
        name="liger-256-compiled-onednn",
        build=lambda pair: _liger(pair, chunk=256, compiled=True),
        package="liger-kernel",
        note="liger-256-compiled, where its user has set `torch.backends.mkldnn.matmul.fp32_precision`",
        products=_told_onednn,
    ),
    Contender(
        name="modelopt",
        build=_modelopt,
        package="nvidia-modelopt",
        note="`LogitsDistillationLoss`, reduction none, masked mean",
    ),
    Contender(name="textbrewer", build=_textbrewer, objective=BREWER, package="textbrewer", note="`kd_ce_loss`"),
    Contender(name="distillkit", build=_distillkit, package="distillkit"),
]
