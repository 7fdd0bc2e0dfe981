"""What does a teacher's help buy? Students of every kind on text they have not learned from, beside a fair control.

    python -m benchmarks.quality --out /tmp/quality                 # the demo's teacher and its sentences
    python -m benchmarks.quality --teacher DIR --data train.txt --validation test.txt --out /tmp/quality-mine
    python -m benchmarks.quality --out /tmp/quality --redraw        # the table again from what is there

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
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from apt_model.commands.console import hush_libraries
from apt_model.commands.control import ALONE, overall
from apt_model.data.dataset import load_dataset, make_dataloader, tokenize_dataset
from apt_model.demo.lesson import load_teacher, read_corpus
from apt_model.distill.students.fresh import create_compressed_model
from apt_model.distill.students.shrink import shrink
from apt_model.events.evaluation import Evaluation
from apt_model.events.records import EpochFinished, Event
from apt_model.generation.evaluator import evaluate_text_quality
from apt_model.models.pretrained import load_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from benchmarks.tables import MISSING, grid

HELD_OUT = 8  # of the demo's sentences, every eighth
LOOKS = 6  # at the held-out text during a run


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to teach.

    Attributes:
        start: the student's beginning: "fresh" weights in half the teacher's layers, every other of its "layers", or
            all of them at a share of their "width" (rotated and cut).
        settings: of the lesson.
        permuted: the teacher speaks of another row of the batch.
    """

    start: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    permuted: bool = False


RATES = {"fresh": 3e-3, "layers": 1e-3, "width": 1e-3}  # beginnings, and their peak learning rates
LOOKED_AT = 64  # rows that a width is cut by
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


class Portions:
    """Batches of a loader, so many an epoch of the run, going on where the last one ended."""

    def __init__(self, loader: Any, count: int) -> None:
        self._loader, self._count = loader, count
        self._left = self._forever()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return islice(self._left, self._count)

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self._loader


class Permuted(nn.Module):
    """A teacher that speaks of the next row of the batch."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, L, V)."""
        logits: Tensor = self.teacher(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.roll(1, dims=0)


class Curve:
    """A sink that keeps the held-out cross-entropy of each look."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def emit(self, event: Event) -> None:
        """Note it."""
        if isinstance(event, EpochFinished) and event.validation is not None:
            self.losses.append(event.validation.ce)

    def close(self) -> None:
        """Nothing to close."""


class School:
    """A teacher, its texts, and where results are kept."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        if arguments.teacher is None:
            self.teacher, self.tokenizer = load_teacher()
            lines = [line for lines in read_corpus().values() for line in lines]
            held = lines[::HELD_OUT]
            rows = [{"text": line} for index, line in enumerate(lines) if index % HELD_OUT]
            looked = [{"text": line} for line in held]
        else:
            self.teacher, self.tokenizer, _ = load_model(arguments.teacher)
            rows = load_dataset(arguments.data)
            if arguments.rows is not None:
                rows = rows.select(range(min(arguments.rows, len(rows))))
            looked = list(islice(load_dataset(arguments.validation), arguments.documents))
        self.rows, self._looked = (self._tokenized(some) for some in (rows, looked))

    def _tokenized(self, rows: Any) -> Any:
        import datasets

        data = rows if hasattr(rows, "map") else datasets.Dataset.from_list(list(rows))
        return tokenize_dataset(data, tokenizer=self.tokenizer, max_length=self._arguments.max_length)

    def student(self, start: str, seed: int) -> Any:
        """A student before its first lesson."""
        config = self.teacher.config
        set_seed(seed)
        if start == "width":
            width = self._arguments.width
            sizes = {name: int(getattr(config, name) * width) for name in ("hidden_size", "intermediate_size")}
            some = [self.rows[index] for index in range(0, len(self.rows), max(1, len(self.rows) // LOOKED_AT))]
            return shrink(self.teacher, [some], tokenizer=self.tokenizer, **sizes).student
        init = "fresh" if start == "fresh" else "teacher"
        return create_compressed_model(self.teacher, num_layers=max(1, config.num_hidden_layers // 2), init=init)

    def looked(self) -> Any:
        """The held-out text."""
        return make_dataloader(self._looked, batch_size=self._arguments.batch_size, shuffle=False)

    def teach(self, arm: Arm, seed: int) -> tuple[nn.Module, list[float], float]:
        """A student after its lesson, its held-out cross-entropies on the way, and the seconds that it took."""
        arguments, curve = self._arguments, Curve()
        student = self.student(arm.start, seed)
        loader = make_dataloader(self.rows, batch_size=arguments.batch_size, seed=seed)
        config = {"learning_rate": RATES[arm.start], "warmup_ratio": 0.1, "seed": seed} | dict(arm.settings)
        started = time.perf_counter()
        DistillationPlugin(config).distill_model(
            student_model=student,
            teacher_model=Permuted(self.teacher) if arm.permuted else self.teacher,
            train_dataloader=Portions(loader, arguments.steps // LOOKS),
            eval_dataloader=self.looked(),
            tokenizer=self.tokenizer,
            num_epochs=LOOKS,
            device=arguments.device,
            sinks=[curve],
        )
        return student, curve.losses, time.perf_counter() - started

    def judge(self, student: nn.Module, control: nn.Module | None) -> Evaluation:
        """A student, beside its control if there is one."""
        return evaluate_text_quality(
            student, self.looked(), self.tokenizer, self.teacher, control=control, max_new_tokens=0
        )


def measure(school: School, arguments: argparse.Namespace) -> None:
    """Teach every arm that is not there yet; keep what came of it."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        controls: dict[str, nn.Module] = {}
        for name in arguments.arms:
            arm = ARMS[name]
            file = arguments.out / f"{seed} {name}.json"
            is_control = arm.settings == ALONE
            if file.exists() and not is_control:
                continue
            if arm.start not in controls and not is_control:
                raise SystemExit(f"error: no control of the beginning {arm.start!r} before {name!r}")
            weights = arguments.out / f"{seed} {arm.start}.pt.safetensors"
            student, curve, seconds = _kept(school, arm, seed, file, weights)
            if is_control:
                controls[arm.start] = student
            found = school.judge(student, controls[arm.start])
            record = {"arm": name, "seed": seed, "curve": curve, "seconds": seconds, "found": found}
            file.write_text(json.dumps(record), "utf-8")
            print(f"seed {seed}, {name}: {found}, {seconds:.0f} s", flush=True)


def _kept(school: School, arm: Arm, seed: int, file: Path, weights: Path) -> tuple[nn.Module, list[float], float]:
    """Taught now; a control's weights are kept, since others are judged beside it."""
    from safetensors.torch import load_model as load_weights
    from safetensors.torch import save_model as save_weights

    is_control = arm.settings == ALONE
    if is_control and file.exists() and weights.exists():
        student, record = school.student(arm.start, seed), json.loads(file.read_text("utf-8"))
        load_weights(student, str(weights))
        return student, record["curve"], record["seconds"]
    taught = school.teach(arm, seed)
    if is_control:
        save_weights(deepcopy(taught[0]), str(weights))
    return taught


def table(out: Path, arms: Sequence[str], steps: int) -> str:
    """What is there, as Markdown."""
    records: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted(out.glob("*.json")):
        one = json.loads(file.read_text("utf-8"))
        records.setdefault(one["arm"], {})[one["seed"]] = one
    fresh = records.get(next(iter(ARMS)), {})
    rows = []
    for name in [name for name in arms if name in records]:
        by_seed = records[name]
        found = [one["found"] for one in by_seed.values()]
        figures = [
            statistics.median(one[key] for one in found) for key in ("perplexity", "accuracy", "agreement", "kl")
        ]
        seconds = statistics.median(one["seconds"] for one in by_seed.values())
        closed = overall([Evaluation(one) for one in found]) if ARMS[name].settings != ALONE else {}
        reached = [_reached(one["curve"], fresh[seed]["curve"][-1]) for seed, one in by_seed.items() if seed in fresh]
        rows.append(
            [
                name,
                f"{figures[0]:,.1f}",
                f"{figures[1]:.1%}",
                f"{figures[2]:.1%}",
                f"{figures[3]:.3f}",
                _closed(closed),
                _share(reached, steps),
                f"{seconds:.0f}",
                str(len(found)),
            ]
        )
    teacher = next(iter(next(iter(records.values())).values()))["found"]["teacher"]
    rows.append(["the teacher", f"{teacher['perplexity']:,.1f}", f"{teacher['accuracy']:.1%}", *[MISSING] * 6])
    head = ["student", "perplexity", "accuracy", "agreement", "KL, nats", "gap closed (95 %)"]
    return grid([*head, "steps to the fresh control's end", "seconds", "seeds"], rows)


def _reached(curve: Sequence[float], goal: float) -> float | None:
    """The share of the run after which the curve was at the goal; None if never."""
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


def add_material(parser: argparse.ArgumentParser) -> None:
    """The options that say who teaches from what."""
    parser.add_argument("--teacher", metavar="DIR", help="a model directory (default: the demo's)")
    parser.add_argument("--data", nargs="+", metavar="FILE", help="what is learned from")
    parser.add_argument("--rows", type=int, help="of it, the first (default: all)")
    parser.add_argument("--validation", nargs="+", metavar="FILE", help="what is not")
    parser.add_argument("--documents", type=int, default=64, help="of it (default: 64)")
    parser.add_argument(
        "--width",
        type=float,
        default=0.75,
        help="of the teacher's, where it is cut (default: 0.75, as half its layers)",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--redraw", action="store_true", help="measure nothing, read --out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hush_libraries()
    if not arguments.redraw:
        measure(School(arguments), arguments)
    print(table(arguments.out, arguments.arms, arguments.steps))


if __name__ == "__main__":
    main()
