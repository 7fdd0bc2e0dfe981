"""Study at equal compute: held-out quality of students of TRL's distillation trainers and of ours.

    python -m studies.against_trl --teacher DIR --data train.txt --validation test.txt --out /tmp/against

Needs TRL (`make bench` sets up an environment that has it). For each seed, one contender after the other has so many
seconds of CPU time, from making the student to its last step: a few steps are timed first, the schedule is laid out for
as many as fit. Students have half of the teacher's layers, or are rotated and cut to as many parameters. Held-out
figures as in `quality`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch

from apt_model.data.dataset import make_dataloader
from apt_model.plugins.distillation_plugin import DistillationPlugin
from benchmarks.markdown import grid
from studies.records import held_out, place, read
from studies.school import Portions, School, add_material

TIMED = 4  # steps
PROMPT = 8  # tokens that an on-policy trainer begins with
Lesson = Callable[[Any, int, int], None]  # trains a student, with a seed, for so many steps
WORDS_ONLY = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
)


class Lessons:
    """Training functions of the contenders, for the same teacher and data."""

    def __init__(self, school: School, batch_size: int, max_length: int) -> None:
        self._school, self._batch_size, self._max_length = school, batch_size, max_length
        tokenizer = school.tokenizer
        self._texts = [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in school.rows]
        self._prompts = [
            tokenizer.decode(row["input_ids"][: 1 + PROMPT], skip_special_tokens=True) for row in school.rows
        ]

    def ours(self, **settings: Any) -> Lesson:
        """Our plugin."""

        def teach(student: Any, seed: int, steps: int) -> None:
            school = self._school
            loader = make_dataloader(school.rows, batch_size=self._batch_size, seed=seed)
            config = {"learning_rate": 1e-3, "warmup_ratio": 0.1, "temperature": 1.0, "seed": seed, **settings}
            DistillationPlugin(config).distill_model(
                student_model=student,
                teacher_model=school.teacher,
                train_dataloader=Portions(loader, steps),
                tokenizer=school.tokenizer,
                num_epochs=1,
                device="cpu",
                sinks=[],
            )

        return teach

    def distillation_trainer(self, **settings: Any) -> Lesson:
        """TRL's trainer for student-generated text."""

        def teach(student: Any, seed: int, steps: int) -> None:
            from trl import DistillationConfig, DistillationTrainer

            tokenizer = self._school.tokenizer
            tokenizer.padding_side = "left"
            how = self._how(seed, steps) | {"max_completion_length": self._max_length - PROMPT - 1} | settings
            with tempfile.TemporaryDirectory() as out:
                DistillationTrainer(
                    student,
                    teacher_model=self._school.teacher,
                    args=DistillationConfig(out, **how),
                    train_dataset=datasets.Dataset.from_dict({"prompt": self._prompts}),
                    processing_class=tokenizer,
                ).train()
            tokenizer.padding_side = "right"

        return teach

    def gkd_trainer(self, **settings: Any) -> Lesson:
        """TRL's GKD trainer on the texts."""

        def teach(student: Any, seed: int, steps: int) -> None:
            from trl.experimental.gkd import GKDConfig, GKDTrainer

            tokenizer = self._school.tokenizer
            tokenizer.chat_template = WORDS_ONLY
            chats = [[{"role": "user", "content": ""}, {"role": "assistant", "content": text}] for text in self._texts]
            how = self._how(seed, steps) | {"max_length": self._max_length + PROMPT} | settings  # and a prompt
            with tempfile.TemporaryDirectory() as out:
                GKDTrainer(
                    student,
                    teacher_model=self._school.teacher,
                    args=GKDConfig(out, **how),
                    train_dataset=datasets.Dataset.from_dict({"messages": chats}),
                    processing_class=tokenizer,
                ).train()

        return teach

    def _how(self, seed: int, steps: int) -> dict[str, Any]:
        """Trainer arguments that all of TRL's contenders share."""
        return {
            "max_steps": steps,
            "seed": seed,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_strategy": "no",
        }


def contenders(lessons: Lessons, batch_size: int) -> dict[str, tuple[str, Lesson]]:
    """The contenders by name: the student's start, and the training function."""
    rate = {"learning_rate": 1e-3, "per_device_train_batch_size": batch_size, "warmup_steps": 0.1}
    off_policy = {"lmbda": 0.0, "beta": 0.0, "temperature": 1.0}
    return {
        "ours, rotated and cut": ("width", lessons.ours()),
        "ours, rotated and cut, hidden states": ("width", lessons.ours(hidden_weight=10.0)),
        "ours, teacher's layers": ("layers", lessons.ours()),
        "ours, teacher's layers, the teacher alone (alpha 1)": ("layers", lessons.ours(alpha=1.0)),
        "TRL DistillationTrainer, its defaults": ("layers", lessons.distillation_trainer()),
        "TRL DistillationTrainer, our rate and batch": ("layers", lessons.distillation_trainer(**rate)),
        "TRL GKDTrainer, its defaults": ("layers", lessons.gkd_trainer(max_new_tokens=48)),
        "TRL GKDTrainer, off-policy forward KL, our rate and batch": (
            "layers",
            lessons.gkd_trainer(**rate, **off_policy),
        ),
    }


def measure(arguments: argparse.Namespace) -> None:
    """Train and evaluate every contender whose result is missing, and save it."""
    school = School(arguments)
    everyone = contenders(Lessons(school, arguments.batch_size, arguments.max_length), arguments.batch_size)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        for name, (start, teach) in everyone.items():
            file = place(arguments.out, seed, name)
            if file.exists():
                continue
            _timed(school, start, teach, seed, 1)  # warms up
            once, often = (_timed(school, start, teach, seed, steps)[1] for steps in (1, 1 + TIMED))
            step = (often - once) / TIMED
            steps = max(1, int((arguments.seconds - (once - step)) / step))
            student, seconds = _timed(school, start, teach, seed, steps)
            record = {"name": name, "steps": steps, "seconds": seconds, "found": school.judge(student, None)}
            file.write_text(json.dumps(record), "utf-8")
            print(f"seed {seed}, {name}: {steps} steps in {seconds:.0f} s, {record['found']}", flush=True)


def _timed(school: School, start: str, teach: Lesson, seed: int, steps: int) -> tuple[Any, float]:
    """A student after so many steps, and the CPU seconds that it took to make and teach it."""
    began = time.process_time()
    student = school.student(start, seed)
    teach(student, seed, steps)
    return student, time.process_time() - began


def table(out: Path) -> str:
    """The results so far, as Markdown: medians over seeds."""
    rows = []
    for name, by_seed in read(out).items():
        records = list(by_seed.values())
        steps, seconds = (statistics.median(record[key] for record in records) for key in ("steps", "seconds"))
        rows.append([name, f"{steps:.0f}", f"{seconds:.0f}", *held_out(records), str(len(records))])
    rows.sort(key=lambda row: float(row[6]))
    return grid(["taught by", "steps", "CPU seconds", "perplexity", "accuracy", "agreement", "KL, nats", "seeds"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--seconds", type=float, default=120.0, help="of CPU time, for each training (default: 120)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    measure(arguments)
    print(table(arguments.out))


if __name__ == "__main__":
    main()
