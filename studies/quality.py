"""Study of what a teacher adds: held-out perplexity, agreement and gap closed, each student beside a control.

    python -m studies.quality --out /tmp/quality                 # the demo's teacher and its sentences
    python -m studies.quality --teacher DIR --data train.txt --validation test.txt --out /tmp/quality-mine
    python -m studies.quality --out /tmp/quality --redraw        # the table again from what is there

For each seed, every arm has the same text in the same order and as many steps; arms with the same beginning have the
same first weights, and the control among them learns from labels alone. Arms that are done are kept in `--out`, so a
run that is cut short goes on. Reported: medians over seeds of figures on the held-out text, the share of the loss
between control and teacher that was closed (mean and its 95 % interval over seeds, Student's t), and the share of the
steps after which an arm was as good as its beginning's control, or the fresh one, at its end.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apt_model.commands.control import ALONE, overall
from apt_model.data.dataset import make_dataloader
from apt_model.events.evaluation import Evaluation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished
from apt_model.plugins.distillation_plugin import DistillationPlugin
from benchmarks.markdown import MISSING, grid
from studies.records import held_out, place, read
from studies.school import Portions, School, add_material

LOOKS = 6  # at the held-out text during a run


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A training condition of the study.

    Attributes:
        start: the student before training: "fresh" weights in half the teacher's layers, every other of its "layers",
            or all of them at a share of their "width" (rotated and cut).
        settings: of the training.
        permuted: the teacher's logits are those of another row of the batch.
    """

    start: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    permuted: bool = False


RATES = {"fresh": 3e-3, "layers": 1e-3, "width": 1e-3}  # beginnings, and their peak learning rates
ARMS: Mapping[str, Arm] = {
    "fresh, labels alone (control)": Arm(start="fresh", settings=ALONE),
    "fresh, KD, T = 1": Arm(start="fresh", settings={"temperature": 1.0}),
    "fresh, KD, T = 2": Arm(start="fresh", settings={"temperature": 2.0}),
    "fresh, KD, T = 4": Arm(start="fresh", settings={"temperature": 4.0}),
    "fresh, KD alone (alpha 1), T = 1": Arm(start="fresh", settings={"temperature": 1.0, "alpha": 1.0}),
    "fresh, a teacher of other rows, T = 1": Arm(start="fresh", settings={"temperature": 1.0}, permuted=True),
    "fresh, KD, T = 1, hidden states (last)": Arm(start="fresh", settings={"temperature": 1.0, "hidden_weight": 10.0}),
    "fresh, KD, T = 1, hidden states (even)": Arm(
        start="fresh", settings={"temperature": 1.0, "hidden_weight": 10.0, "layer_map": "even"}
    ),
    "fresh, KD, T = 1, attention (last)": Arm(start="fresh", settings={"temperature": 1.0, "attention_weight": 0.1}),
    "fresh, KD, T = 1, a quarter on-policy": Arm(
        start="fresh", settings={"temperature": 1.0, "on_policy": 0.25, "on_policy_tokens": 24}
    ),
    "teacher's layers, labels alone (control)": Arm(start="layers", settings=ALONE),
    "teacher's layers, KD, T = 1": Arm(start="layers", settings={"temperature": 1.0}),
    "teacher's layers, KD, T = 4": Arm(start="layers", settings={"temperature": 4.0}),
    "teacher's layers, KD, T = 1, hidden states (last)": Arm(
        start="layers", settings={"temperature": 1.0, "hidden_weight": 10.0}
    ),
    "teacher's layers, KD, T = 1, a quarter on-policy": Arm(
        start="layers", settings={"temperature": 1.0, "on_policy": 0.25, "on_policy_tokens": 24}
    ),
    "rotated and cut, labels alone (control)": Arm(start="width", settings=ALONE),
    "rotated and cut, KD, T = 1": Arm(start="width", settings={"temperature": 1.0}),
    "rotated and cut, KD, T = 4": Arm(start="width", settings={"temperature": 4.0}),
    "rotated and cut, KD alone (alpha 1), T = 1": Arm(start="width", settings={"temperature": 1.0, "alpha": 1.0}),
    "rotated and cut, KD, T = 1, hidden states (last)": Arm(
        start="width", settings={"temperature": 1.0, "hidden_weight": 10.0}
    ),
}


class Permuted(nn.Module):
    """A teacher whose logits are those of another row of the batch."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, L, V)."""
        logits: Tensor = self.teacher(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.roll(1, dims=0)


class Curve:
    """A sink that records the held-out cross-entropy of each validation."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def emit(self, event: Event) -> None:
        """Record the cross-entropy of a finished epoch's validation."""
        if isinstance(event, EpochFinished) and event.validation is not None:
            self.losses.append(event.validation.ce)

    def close(self) -> None:
        """Nothing to close."""


def teach(school: School, arm: Arm, seed: int, arguments: argparse.Namespace) -> tuple[nn.Module, list[float], float]:
    """Train a student; returns it, its held-out cross-entropies during training, and the seconds that it took."""
    curve, student = Curve(), school.student(arm.start, seed)
    loader = make_dataloader(school.rows, batch_size=arguments.batch_size, seed=seed)
    config = {"learning_rate": RATES[arm.start], "warmup_ratio": 0.1, "seed": seed} | dict(arm.settings)
    started = time.perf_counter()
    DistillationPlugin(config).distill_model(
        student_model=student,
        teacher_model=Permuted(school.teacher) if arm.permuted else school.teacher,
        train_dataloader=Portions(loader, arguments.steps // LOOKS),
        eval_dataloader=school.looked(),
        tokenizer=school.tokenizer,
        num_epochs=LOOKS,
        device=arguments.device,
        sinks=[curve],
    )
    return student, curve.losses, time.perf_counter() - started


def measure(school: School, arguments: argparse.Namespace) -> None:
    """Train and evaluate every arm whose result is missing, and save it."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        controls: dict[str, nn.Module] = {}
        for name in arguments.arms:
            arm = ARMS[name]
            file = place(arguments.out, seed, name)
            is_control = arm.settings == ALONE
            if file.exists() and not is_control:
                continue
            if arm.start not in controls and not is_control:
                raise SystemExit(f"error: no control of the beginning {arm.start!r} before {name!r}")
            student, curve, seconds = _kept(school, arm, seed, file, arguments)
            if is_control:
                controls[arm.start] = student
            found = school.judge(student, controls[arm.start])
            record = {"arm": name, "seed": seed, "curve": curve, "seconds": seconds, "found": found}
            file.write_text(json.dumps(record), "utf-8")
            print(f"seed {seed}, {name}: {found}, {seconds:.0f} s", flush=True)


def _kept(
    school: School, arm: Arm, seed: int, file: Path, arguments: argparse.Namespace
) -> tuple[nn.Module, list[float], float]:
    """Train and evaluate one arm; a control's weights are saved, since the others are compared with it."""
    from safetensors.torch import load_model as load_weights
    from safetensors.torch import save_model as save_weights

    is_control, weights = arm.settings == ALONE, place(arguments.out, seed, arm.start, ".pt.safetensors")
    if is_control and file.exists() and weights.exists():
        student, record = school.student(arm.start, seed), json.loads(file.read_text("utf-8"))
        load_weights(student, str(weights))
        return student, record["curve"], record["seconds"]
    taught = teach(school, arm, seed, arguments)
    if is_control:
        save_weights(deepcopy(taught[0]), str(weights))
    return taught


def table(out: Path, arms: Sequence[str], steps: int) -> str:
    """The results so far, as Markdown."""
    records = read(out)
    fresh = records.get(next(iter(ARMS)), {})
    rows = []
    for name in [name for name in arms if name in records]:
        by_seed = records[name]
        ones = list(by_seed.values())
        seconds = statistics.median(one["seconds"] for one in ones)
        closed = overall([Evaluation(one["found"]) for one in ones]) if ARMS[name].settings != ALONE else {}
        reached = [_reached(one["curve"], fresh[seed]["curve"][-1]) for seed, one in by_seed.items() if seed in fresh]
        told = [_closed(closed), _share(reached, steps), f"{seconds:.0f}", str(len(ones))]
        rows.append([name, *held_out(ones), *told])
    teacher = next(iter(next(iter(records.values())).values()))["found"]["teacher"]
    rows.append(["the teacher", f"{teacher['perplexity']:,.1f}", f"{teacher['accuracy']:.1%}", *[MISSING] * 6])
    head = ["student", "perplexity", "accuracy", "agreement", "KL, nats", "gap closed (95 %)"]
    return grid([*head, "steps to the fresh control's end", "seconds", "seeds"], rows)


def _reached(curve: Sequence[float], goal: float) -> float | None:
    """The share of the run after which the curve reached the goal; None if never."""
    return next(((index + 1) / len(curve) for index, loss in enumerate(curve) if loss <= goal), None)


def _share(reached: Sequence[float | None], steps: int) -> str:
    found = [share for share in reached if share is not None]
    if not reached:
        return MISSING  # there is no fresh control
    if len(found) < len(reached):
        return "not reached"
    return f"≤ {statistics.median(found) * steps:.0f} of {steps}"


def _closed(closed: Mapping[str, Any]) -> str:
    if not closed:
        return MISSING
    text = f"{closed['gap_closed']:.0%}"
    interval = closed["interval"]
    return text if interval is None else f"{text} ({interval[0]:.0%} to {interval[1]:.0%})"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--redraw", action="store_true", help="measure nothing, read --out")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if not arguments.redraw:
        measure(School(arguments), arguments)
    print(table(arguments.out, arguments.arms, arguments.steps))


if __name__ == "__main__":
    main()
