"""`apt-model demo` and `apt-model distill`: train a student from a teacher, show it, save it."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from apt_model.commands.begun import Begun, begun_by
from apt_model.commands.console import importing, print_line, program, speaker, waiting
from apt_model.commands.control import Control, refuse_control
from apt_model.commands.material import Material, add_material, gather, material_settings, prepare
from apt_model.commands.options import add_command, add_settings, read_settings
from apt_model.commands.set_aside import tell
from apt_model.config import LessonConfig
from apt_model.events.evaluation import Evaluation
from apt_model.events.runfile import EVENTS, STUDENT, check_run_directory
from apt_model.ranks.group import ranks

DEMO_DEFAULTS = {  # as in apt_model.demo.lesson, which would load torch
    "temperature": "1.0",
    "num_epochs": "3; with --lang en: 4",
    "sample_frequency": "60",
    "learning_rate": "0.003; with --lang en: 0.01",
    "warmup_ratio": "0.1",
    "seed": "0",
    "exam_prompts": "three, of text that the student is not taught",
    "exam_tokens": "40",
    "save_total_limit": "4",
}


def add(commands: Any) -> None:
    """Add the parsers of both commands."""
    demo = add_command(
        commands,
        "demo",
        _demo,
        "train a small student from a built-in teacher, in Chinese or (--lang en) in English, in about a minute",
        is_shared=True,
    )
    demo.add_argument("--out", metavar="RUN", help="run directory (default: runs/demo-DATE-TIME)")
    demo.add_argument(
        "--material",
        metavar="FOLDER",
        help="train nothing; write the demo's teacher and texts into this folder, to try `distill` with",
    )
    add_settings(demo, defaults=DEMO_DEFAULTS)

    summary = "distill a teacher into a student on your own data"
    distill = add_command(commands, "distill", _distill, summary, is_shared=True)
    add_material(distill)
    distill.add_argument(
        "--out", required=True, metavar="RUN", help="run directory: gets the record, the checkpoints and the student"
    )
    distill.add_argument(
        "--doctor",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the checks of `doctor` first (default: yes)",
    )
    distill.add_argument("--resume", action="store_true", help="continue the run in --out from its newest checkpoint")
    distill.add_argument(
        "--resume-anyway", action="store_true", help="--resume even if settings, models or data have changed"
    )
    distill.add_argument(
        "--control",
        nargs="?",
        type=int,
        const=1,
        metavar="SEEDS",
        help="then train the same student on the labels alone, and report how much of its gap to the teacher the "
        "distilled student closes; needs validation data; SEEDS: repeat with that many seeds (default: 1)",
    )
    distill.add_argument("--plain", action="store_true", help="log metrics instead of showing cards")


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Teacher, tokenizers and data of a distillation: trains a student on them, and evaluates it.

    Attributes:
        teacher: a model, or a `CachedTeacher`.
        tokenizer: the student's.
        teacher_tokenizer: the teacher's, if it differs.
        rows, looked_at: training and validation rows; `looked_at` may be None.
        batch_size: samples per batch.
        topics: keywords by topic, instead of the built-in ones; empty: those.
        names: of the data, as they were given.
    """

    teacher: Any
    tokenizer: Any
    rows: Any
    batch_size: int
    teacher_tokenizer: Any = None
    looked_at: Any = None
    topics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Sequence[str] = ()

    def run(
        self,
        config: LessonConfig,
        student: Any,
        out: Path,
        *,
        plain: bool = False,
        resume_from: Path | None = None,
        resume_anyway: bool = False,
        branch_from: Path | None = None,
        branch_at: int | None = None,
    ) -> None:
        """Train a student in place; with `plain`, log metrics instead of showing cards."""
        with importing(config.display.lang):
            from apt_model.data.dataset import make_dataloader
            from apt_model.plugins.distillation_plugin import DistillationPlugin
            from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin

        visual = VisualDistillationPlugin(config)
        if self.topics:
            visual.topic_keywords.clear()
            visual.topic_keywords.update({topic: list(words) for topic, words in self.topics.items()})
        run = DistillationPlugin(config).distill_model if plain else visual.visual_distill_model
        run(
            student_model=student,
            teacher_model=self.teacher,
            train_dataloader=make_dataloader(self.rows, batch_size=self.batch_size, seed=config.train.seed or 0),
            eval_dataloader=self.looked_at and self._shown(),
            tokenizer=self.tokenizer,
            teacher_tokenizer=self.teacher_tokenizer,
            num_epochs=config.train.num_epochs,
            device=config.train.device,
            run_dir=out,
            resume_from=resume_from,
            resume_anyway=resume_anyway,
            branch_from=branch_from,
            branch_at=branch_at,
            data_names=self.names,
        )

    def judge(self, config: LessonConfig, student: Any, control: Any) -> Evaluation:
        """Evaluate a student, its control and the teacher on the validation rows; the ranks share them."""
        from apt_model.generation.evaluator import evaluate_text_quality
        from apt_model.models.sharding import is_sharded

        return evaluate_text_quality(
            student,
            self._shown(),
            self.tokenizer,
            self.teacher,
            control=control,
            max_length=config.train.max_length,
            max_new_tokens=0,
            lang=config.display.lang,
            is_shared=not any(map(is_sharded, (student, control, self.teacher))),  # a shard runs with all others
        )

    def _shown(self) -> Any:
        from apt_model.data.dataset import make_dataloader

        return make_dataloader(self.looked_at, batch_size=self.batch_size, shuffle=False)


def _demo(arguments: argparse.Namespace) -> None:
    if arguments.material is not None:
        _write_material(Path(arguments.material), read_settings(arguments).display.lang)
        return
    out = Path(ranks().of_first(partial(_place_of_demo, arguments.out), "choose the run directory"))
    lang = read_settings(arguments).display.lang
    with importing(lang):
        from apt_model.demo.lesson import lesson_of as demo_of

    config = read_settings(arguments, **demo_of(lang).settings)
    lesson, student = demo_lesson(lang, config)
    Begun(command="demo", flags={"lang": lang}, settings=config.to_dict(), directory=Path.cwd()).keep(out)
    lesson.run(config, student, out)
    print_paths(config, out)


def demo_lesson(lang: str, config: LessonConfig) -> tuple[Lesson, Any]:
    """The demo in a language with these settings, and its fresh student."""
    with importing(config.display.lang):
        from apt_model.demo.lesson import BATCH_SIZE, load_teacher, new_student, read_corpus, read_unseen
        from apt_model.demo.lesson import lesson_of as demo_of

    prepare(config)
    with waiting(config.display.lang, "demo"):
        teacher, tokenizer = load_teacher(lang)
    lesson = Lesson(
        teacher=teacher,
        tokenizer=tokenizer,
        rows=list(chain.from_iterable(read_corpus(lang).values())),
        looked_at=list(chain.from_iterable(read_unseen(lang).values())),
        batch_size=BATCH_SIZE,
        topics=demo_of(lang).topics,
        names=(f"the corpus of apt-model demo, {lang}",),
    )
    return lesson, new_student(teacher)


def _write_material(folder: Path, lang: str) -> None:
    with importing(lang):
        from apt_model.demo.lesson import write_material

    ranks().of_first(partial(write_material, folder, lang), "write the demo's material")
    say, here = speaker(lang), shlex.quote(str(folder))
    data = f"--data {here}/book.txt --validation-data {here}/unseen.txt"
    student = f"--student layers=3,hidden=32 {data} --recipe fresh --lang {lang} --out runs/first"
    print_line(say("after.material", path=folder))
    print_line(say("after.distill", command=f"{program()} distill --teacher {here}/teacher {student}"))


def _place_of_demo(named: str | None) -> str:
    return str(check_run_directory(named or f"runs/demo-{datetime.now():%Y%m%d-%H%M%S}"))


def _distill(arguments: argparse.Namespace) -> None:
    config = material_settings(arguments)
    with ranks().session(patience=config.train.rank_patience, directory=Path(arguments.out)):
        _distill_together(arguments, config)


def _distill_together(arguments: argparse.Namespace, config: LessonConfig) -> None:
    """Distil with the other ranks, if there are any: rank 0 checks, reads data first, and prints."""
    if arguments.control is not None:
        refuse_control(arguments, config)
    resumes, out, run = arguments.resume or arguments.resume_anyway, Path(arguments.out), ranks()
    with run.agreed("open the run directory"):
        if run.is_first:
            check_run_directory(out, resumes=resumes)
    material = gather(arguments, config)
    with run.agreed("the doctor's checks"):
        if arguments.doctor and run.is_first:
            material.examine(config, run_dir=out)
    material.refuse_other_tokenizer(config)
    with run.first("tokenize the data"):
        rows, looked_at = material.tokenized(config)
    tell(material.told)
    lesson = lesson_of(material, rows, looked_at, names=arguments.data)
    begun_by("distill", arguments, config).keep(out)
    control = None
    if arguments.control is not None:
        control = Control(
            config, lesson, seeds=arguments.control, out=out, first=material.student, remake=material.remake
        )
    lesson.run(
        config,
        material.student,
        out,
        plain=arguments.plain,
        resume_from=out if resumes else None,
        resume_anyway=arguments.resume_anyway,
    )
    print_paths(config, out)
    if control is not None:
        control.run(material.student)


def lesson_of(material: Material, rows: Any, looked_at: Any, *, names: Sequence[str]) -> Lesson:
    """The lesson of models and tokenized rows; `names`: of the data."""
    return Lesson(
        teacher=material.teacher,
        tokenizer=material.tokenizer,
        teacher_tokenizer=material.teachers_own_tokenizer,
        rows=rows,
        looked_at=looked_at,
        batch_size=material.batch_size,
        names=names,
    )


def print_paths(config: LessonConfig, out: Path) -> None:
    """Print where the student and the record are, and the commands for them."""
    say, folder = speaker(config.display.lang), shlex.quote(str(out))
    print()
    print_line(say("after.student", path=out / STUDENT))
    print_line(say("after.record", path=out / EVENTS))
    for command in ("talk", "watch", "report", "replay"):
        print_line(say(f"after.{command}", command=f"{program()} {command} {folder}"))
