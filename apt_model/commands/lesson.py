"""`apt-model demo` and `apt-model distill`: teach a student, show it, keep it."""

import argparse
import shlex
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from apt_model.commands.console import print_line, program, speaker
from apt_model.commands.control import Control, Teach, refuse_control
from apt_model.commands.material import Material, add_material, gather, prepare
from apt_model.commands.options import add_command, add_settings, read_settings
from apt_model.commands.recipes import find_recipe
from apt_model.commands.teacher import cached_settings
from apt_model.config import LessonConfig
from apt_model.events.evaluation import Evaluation
from apt_model.events.runfile import EVENTS, STUDENT, check_run_directory


def add(commands: Any) -> None:
    """The parsers of both."""
    demo = add_command(commands, "demo", _demo, "watch a student learn Chinese sentences, in a minute or two")
    demo.add_argument("--out", metavar="RUN", help="run directory (default: runs/demo-DATE-TIME)")
    add_settings(demo)

    distill = add_command(commands, "distill", _distill, "distill a model of yours on text of yours")
    add_material(distill)
    distill.add_argument("--out", required=True, metavar="RUN", help="run directory: record and student go there")
    distill.add_argument(
        "--doctor", action=argparse.BooleanOptionalAction, default=True, help="look for trouble first (default: yes)"
    )
    distill.add_argument("--resume", action="store_true", help="go on with the run in --out from its newest checkpoint")
    distill.add_argument("--resume-anyway", action="store_true", help="the same, although settings or data differ")
    distill.add_argument(
        "--control",
        nargs="?",
        type=int,
        const=1,
        metavar="SEEDS",
        help="teach the same student without a teacher too, and say what it was worth; over so many seeds (default: 1)",
    )
    distill.add_argument("--plain", action="store_true", help="log numbers instead of showing a lesson")


def _demo(arguments: argparse.Namespace) -> None:
    out = check_run_directory(arguments.out or f"runs/demo-{datetime.now():%Y%m%d-%H%M%S}")
    from apt_model.demo.lesson import BATCH_SIZE, SETTINGS, load_teacher, new_student, read_corpus

    config = read_settings(arguments, **SETTINGS)
    prepare(config)
    teacher, tokenizer = load_teacher()
    student = new_student(teacher)
    sentences = [sentence for lines in read_corpus().values() for sentence in lines]
    _teach(config, (teacher, student, tokenizer, None), (sentences, None), BATCH_SIZE, out)


def _distill(arguments: argparse.Namespace) -> None:
    recipe = find_recipe(arguments.recipe).settings if arguments.recipe is not None else {}
    config = read_settings(arguments, **{**recipe, **cached_settings(arguments)})
    resumes = arguments.resume or arguments.resume_anyway
    out = check_run_directory(arguments.out, resumes=resumes)
    if arguments.control is not None:
        refuse_control(arguments, config)
    material = gather(arguments, config)
    if arguments.doctor:
        material.examine(config, run_dir=out)
    material.refuse_other_tokenizer(config)
    models = material.teacher, material.student, material.tokenizer, material.others_tokenizer
    how = {"resume_from": out if resumes else None, "resume_anyway": arguments.resume_anyway}
    data = material.tokenized(config)
    control = None
    if arguments.control is not None:
        control = Control(
            config,
            seeds=arguments.control,
            out=out,
            first=material.student,
            remake=material.remake,
            teach=_teach_alone(material, data, arguments.batch_size),
        )
    _teach(config, models, data, arguments.batch_size, out, plain=arguments.plain, **how)
    if control is not None:
        control.run(material.student, _judge(material, data, config, arguments.batch_size))


def _teach_alone(material: Material, data: tuple[Any, Any], batch_size: int) -> Teach:
    """How a student of the same material is taught while nobody looks."""

    def teach(config: LessonConfig, student: Any, out: Path) -> None:
        resume_from = out if (out / EVENTS).exists() else None
        models = material.teacher, student, material.tokenizer, None
        _run(config, models, data, batch_size, out, plain=True, resume_from=resume_from)

    return teach


def _judge(
    material: Material, data: tuple[Any, Any], config: LessonConfig, batch_size: int
) -> Callable[[Any, Any], Evaluation]:
    """How a student and its control are judged, on the validation data."""
    from apt_model.generation.evaluator import evaluate_text_quality
    from apt_model.training.data import make_dataloader

    def judge(student: Any, control: Any) -> Evaluation:
        return evaluate_text_quality(
            student,
            make_dataloader(data[1], batch_size=batch_size, shuffle=False),
            material.tokenizer,
            material.teacher,
            control=control,
            max_length=config.train.max_length,
            max_new_tokens=0,
            lang=config.display.lang,
        )

    return judge


def _teach(
    config: LessonConfig,
    models: tuple[Any, Any, Any, Any],
    data: tuple[Any, Any],
    batch_size: int,
    out: Path,
    **how: Any,
) -> None:
    """Run the lesson, then say where everything lies."""
    _run(config, models, data, batch_size, out, **how)
    say, folder = speaker(config.display.lang), shlex.quote(str(out))
    print()
    print_line(say("after.student", path=out / STUDENT))
    print_line(say("after.record", path=out / EVENTS))
    print_line(say("after.talk", command=f"{program()} talk {folder}"))
    print_line(say("after.replay", command=f"{program()} replay {folder}"))


def _run(
    config: LessonConfig,
    models: tuple[Any, Any, Any, Any],
    data: tuple[Any, Any],
    batch_size: int,
    out: Path,
    *,
    plain: bool = False,
    resume_from: Path | None = None,
    resume_anyway: bool = False,
) -> None:
    from apt_model.plugins.distillation_plugin import DistillationPlugin
    from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
    from apt_model.training.data import make_dataloader

    run = DistillationPlugin(config).distill_model if plain else VisualDistillationPlugin(config).visual_distill_model
    teacher, student, tokenizer, teacher_tokenizer = models
    rows, looked_at = data
    run(
        student_model=student,
        teacher_model=teacher,
        train_dataloader=make_dataloader(rows, batch_size=batch_size, seed=config.train.seed or 0),
        eval_dataloader=looked_at and make_dataloader(looked_at, batch_size=batch_size, shuffle=False),
        tokenizer=tokenizer,
        teacher_tokenizer=teacher_tokenizer,
        num_epochs=config.train.num_epochs,
        device=config.train.device,
        run_dir=out,
        resume_from=resume_from,
        resume_anyway=resume_anyway,
    )
