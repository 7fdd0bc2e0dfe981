"""`apt-model demo` and `apt-model distill`: teach a student, show it, keep it."""

import argparse
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from apt_model.commands.console import hush_libraries, print_line, program, speaker
from apt_model.commands.options import Parser, add_command, add_settings, add_source, read_settings
from apt_model.commands.teacher import add_teacher, cached_settings, load_teacher
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.runfile import EVENTS, STUDENT, check_run_directory


def add(commands: Any) -> None:
    """The parsers of both."""
    demo = add_command(commands, "demo", _demo, "watch a student learn Chinese sentences, in a minute or two")
    demo.add_argument("--out", metavar="RUN", help="run directory (default: runs/demo-DATE-TIME)")
    add_settings(demo)

    distill = add_command(commands, "distill", _distill, "distill a model of yours on text of yours")
    add_teacher(distill)
    distill.add_argument(
        "--student",
        required=True,
        metavar="DIR_OR_ID_OR_NEW",
        help="model directory, hub id, or a new one like the teacher: layers=6,hidden=384",
    )
    add_data(distill)
    distill.add_argument("--out", required=True, metavar="RUN", help="run directory: record and student go there")
    distill.add_argument("--resume", action="store_true", help="go on with the run in --out from its newest checkpoint")
    distill.add_argument("--resume-anyway", action="store_true", help="the same, although settings or data differ")
    distill.add_argument("--config", metavar="FILE", help="TOML file of settings; flags win over it")
    distill.add_argument("--plain", action="store_true", help="log numbers instead of showing a lesson")
    add_settings(distill)


def add_data(parser: Parser) -> None:
    """Flags that say what is read."""
    group = add_source(parser)
    validation = group.add_mutually_exclusive_group()
    validation.add_argument("--validation-data", nargs="+", metavar="FILE", help="data to look at, not to learn from")
    validation.add_argument(
        "--validation-split", type=float, metavar="N", help="a share of the data, or a number of rows, for that"
    )
    group.add_argument("--packing", action="store_true", help="join samples to blocks of max-length tokens: no padding")
    group.add_argument("--streaming", action="store_true", help="read the data while training goes on")


def _demo(arguments: argparse.Namespace) -> None:
    out = check_run_directory(arguments.out or f"runs/demo-{datetime.now():%Y%m%d-%H%M%S}")
    from apt_model.demo.lesson import BATCH_SIZE, SETTINGS, load_teacher, new_student, read_corpus

    config = read_settings(arguments, **SETTINGS)
    _prepare(config)
    teacher, tokenizer = load_teacher()
    student = new_student(teacher)
    sentences = [sentence for lines in read_corpus().values() for sentence in lines]
    _teach(config, (teacher, student, tokenizer), (sentences, None), BATCH_SIZE, out)


def _distill(arguments: argparse.Namespace) -> None:
    config = read_settings(arguments, **cached_settings(arguments))
    if arguments.batch_size < 1:
        raise ConfigError("batch_size is too small", got=arguments.batch_size, expected="1 or more")
    resumes = arguments.resume or arguments.resume_anyway
    out = check_run_directory(arguments.out, resumes=resumes)
    from apt_model.distill.cached_teacher import CachedTeacher
    from apt_model.distill.student import create_compressed_model, parse_student
    from apt_model.training.checkpoint import load_model
    from apt_model.training.data import load_dataset, split_dataset, tokenize_dataset
    from apt_model.training.encode import refuse_other_tokenizer

    sizes = parse_student(arguments.student)
    _prepare(config)
    how = {"split": arguments.split, "text_column": arguments.text_column, "streaming": arguments.streaming}
    rows, looked_at = load_dataset(arguments.data, **how), None
    if arguments.validation_data:
        looked_at = load_dataset(arguments.validation_data, **how)
    elif arguments.validation_split is not None:
        rows, looked_at = split_dataset(rows, arguments.validation_split, seed=config.train.seed or 0)
    elif config.display.show_on == "validation":
        raise ConfigError("show_on is 'validation', but there is no validation data", fix="give --validation-split 0.1")
    teacher, pattern, tokenizer = load_teacher(arguments, config)
    if sizes is not None:
        student = create_compressed_model(pattern, **sizes)
    else:
        student, student_tokenizer, _ = load_model(arguments.student)
        refuse_other_tokenizer(tokenizer, student_tokenizer)
        tokenizer = tokenizer if tokenizer is not None else student_tokenizer
    tokens = {"tokenizer": tokenizer, "max_length": config.train.max_length, "packing": arguments.packing}
    data = tokenize_dataset(rows, **tokens), looked_at and tokenize_dataset(looked_at, **tokens)
    if isinstance(teacher, CachedTeacher) and not arguments.streaming:
        for some in filter(None, data):
            teacher.check_rows(some, tokenizer=tokenizer, max_length=config.train.max_length)
    how = {"resume_from": out if resumes else None, "resume_anyway": arguments.resume_anyway}
    _teach(config, (teacher, student, tokenizer), data, arguments.batch_size, out, plain=arguments.plain, **how)


def _prepare(config: LessonConfig) -> None:
    """Seed before the student is made, and refuse a device that is not there before the teacher is loaded."""
    from accelerate.utils import set_seed

    from apt_model.distill.setup import pick_device

    pick_device(config.train.device)
    set_seed(config.train.seed)
    hush_libraries()


def _teach(
    config: LessonConfig,
    models: tuple[Any, Any, Any],
    data: tuple[Any, Any],
    batch_size: int,
    out: Path,
    *,
    plain: bool = False,
    resume_from: Path | None = None,
    resume_anyway: bool = False,
) -> None:
    """Run the lesson, then say where everything lies."""
    from apt_model.plugins.distillation_plugin import DistillationPlugin
    from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
    from apt_model.training.data import make_dataloader

    run = DistillationPlugin(config).distill_model if plain else VisualDistillationPlugin(config).visual_distill_model
    teacher, student, tokenizer = models
    rows, looked_at = data
    run(
        student_model=student,
        teacher_model=teacher,
        train_dataloader=make_dataloader(rows, batch_size=batch_size, seed=config.train.seed or 0),
        eval_dataloader=looked_at and make_dataloader(looked_at, batch_size=batch_size, shuffle=False),
        tokenizer=tokenizer,
        num_epochs=config.train.num_epochs,
        device=config.train.device,
        run_dir=out,
        resume_from=resume_from,
        resume_anyway=resume_anyway,
    )
    say, folder = speaker(config.display.lang), shlex.quote(str(out))
    print()
    print_line(say("after.student", path=out / STUDENT))
    print_line(say("after.record", path=out / EVENTS))
    print_line(say("after.talk", command=f"{program()} talk {folder}"))
    print_line(say("after.replay", command=f"{program()} replay {folder}"))
