"""Models and data of `distill` and `doctor`: the flags that name them, loading them, the doctor's check of them."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from apt_model.commands.console import collector, importing, waiting
from apt_model.commands.newcomer import LOOKED_AT, StudentMaker
from apt_model.commands.options import PACKING_HELP, Command, add_settings, add_source, read_settings, tell_overruled
from apt_model.commands.recipes import find_recipe
from apt_model.commands.set_aside import learned_too, set_aside, splits_blocks
from apt_model.commands.teacher import add_teacher, cached_settings, load_teacher
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.ranks.group import ranks

BATCHES = 4  # checked by the doctor


def add_material(parser: Command) -> None:
    """Add the flags for teacher, student and data, and one for every setting."""
    add_teacher(parser)
    parser.add_argument(
        "--student",
        required=True,
        metavar="DIR_OR_ID_OR_NEW",
        help="model directory, hub id, or sizes of a new model of the teacher's architecture: layers=6,hidden=384 "
        "(also heads=N, mlp=N); with init=teacher it is cut out of the teacher's weights, its width by "
        "method=rotate|channels (default: rotate), its layers by rank=even|importance|angle (default: even)",
    )
    parser.add_argument(
        "--lora",
        nargs="?",
        const="",
        metavar="r=N,alpha=X,target=T",
        help="train LoRA adapters on the frozen student (without a value: r=8,alpha=16,target=all-linear)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="TOML, YAML or JSON file of settings, and of flags such as teacher and data; what is typed overrides it",
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="settings from `apt-model recipes`; --config and flags override them"
    )
    group = add_source(parser)
    validation = group.add_mutually_exclusive_group()
    validation.add_argument(
        "--validation-data",
        nargs="+",
        metavar="FILE",
        help="data to validate on, not trained on; as --data",
    )
    validation.add_argument(
        "--validation-split",
        type=float,
        metavar="N",
        help="hold out a share (below 1) or number of rows of --data instead; 0: none (default: a twentieth, at "
        "least 8 rows, of 80 or more)",
    )
    group.add_argument("--packing", action="store_true", default=None, help=PACKING_HELP)
    group.add_argument(
        "--streaming",
        action="store_true",
        help="stream the data during training instead of reading it first (default: no)",
    )
    add_settings(parser)


def material_settings(arguments: argparse.Namespace) -> LessonConfig:
    """Settings from the flags, which override the config file, which overrides a cached teacher, which a recipe."""
    recipe = find_recipe(arguments.recipe).settings if arguments.recipe is not None else {}
    return read_settings(arguments, **{**recipe, **cached_settings(arguments)})


@dataclass(frozen=True, kw_only=True)
class Material:
    """Models and rows of a distillation. The teacher may be a `CachedTeacher`; the rows are not tokenized yet.

    `split` sets tokenized rows aside for validation; None where that is done. `told` says what was set aside. `remake`
    makes the untrained student again: loaded, or initialised anew by the seed that is set.
    """

    teacher: Any
    student: Any
    remake: Callable[[], Any]
    teacher_tokenizer: Any
    student_tokenizer: Any
    rows: Any
    looked_at: Any
    split: Callable[[Any], tuple[Any, Any]] | None
    told: list[str]
    batch_size: int
    packing: bool
    streaming: bool

    @property
    def tokenizer(self) -> Any:
        """The student's; if both are the same, the teacher's object, unless only the student's has a chat template."""
        from apt_model.data.answering import with_template

        if self.teachers_own_tokenizer is not None:
            return self.student_tokenizer
        return with_template(self.teacher_tokenizer, self.student_tokenizer)

    @cached_property  # cached: it compares every id of both
    def teachers_own_tokenizer(self) -> Any:
        """The teacher's tokenizer if it differs from the student's, else None."""
        from apt_model.data.encode import differing_ids

        both = self.teacher_tokenizer, self.student_tokenizer
        return self.teacher_tokenizer if None not in both and differing_ids(*both) else None

    def refuse_other_tokenizer(self, config: LessonConfig) -> None:
        """Refuse teacher and student with different tokenizers, unless `cross_tokenizer` allows them.

        Raises:
            DataError: it does not. ConfigError: it does, but the teacher is cached.
        """
        from apt_model.distill.teachers.cross_tokenizer import teachers_own_tokenizer

        tokenizer = self.student_tokenizer if self.student_tokenizer is not None else self.teacher_tokenizer
        teachers_own_tokenizer(config.distill, self.teacher, tokenizer, self.teacher_tokenizer)

    def tokenized(self, config: LessonConfig) -> tuple[Any, Any]:
        """Training and validation rows as token ids; as text if the tokenizers differ.

        Raises:
            DataError: a row is not in the cache of a cached teacher.
        """
        from apt_model.data.dataset import tokenize_dataset
        from apt_model.distill.teachers.cached import CachedTeacher

        if self.teachers_own_tokenizer is not None or (self.streaming and not self.packing):
            return self.rows, self.looked_at  # each batch is then encoded from its text, in the run
        how = {"tokenizer": self.tokenizer, "max_length": config.train.max_length, "packing": self.packing}
        how["tell"] = collector(self.told, config.display.lang)
        with waiting(config.display.lang, "tokens"):
            data = tokenize_dataset(self.rows, **how), self.looked_at and tokenize_dataset(self.looked_at, **how)
        if self.split is not None:
            data = self.split(data[0])
        self.told.extend(learned_too(*data, config.display.lang))
        if isinstance(self.teacher, CachedTeacher) and not self.streaming:
            for some in filter(None, data):
                self.teacher.check_rows(some, tokenizer=self.tokenizer, max_length=config.train.max_length)
        return data

    def examine(self, config: LessonConfig, run_dir: Path | None) -> None:
        """Run the doctor's checks and print the findings.

        Raises:
            AptModelError: of the first finding that would spoil the run.
        """
        from apt_model.data.stored import with_place
        from apt_model.data.structure import RowError
        from apt_model.distill.teachers.cached import CachedTeacher
        from apt_model.doctor.examine import examine
        from apt_model.events.checkup import wrong
        from apt_model.models.devices import pick_device
        from apt_model.render.checkup import show_findings

        with waiting(config.display.lang, "checks"):
            found = examine(
                student=self.student,
                teacher=None if isinstance(self.teacher, CachedTeacher) else self.teacher,
                batches=some_batches(
                    self.rows, BATCHES * self.batch_size, self.batch_size, self.packing and self.tokenizer, config
                ),
                config=config,
                device=pick_device(config.train.device),
                tokenizer=self.teacher_tokenizer,
                student_tokenizer=self.student_tokenizer,
                run_dir=run_dir,
            )
        found = tuple(
            wrong(one.key, with_place(one.error, self.rows)) if isinstance(one.error, RowError) else one
            for one in found
        )
        with suppress(OSError):  # a closed pipe or a full disk behind standard output is no reason not to train
            show_findings(found, lang=config.display.lang)
        for finding in found:
            if finding.error is not None:
                raise finding.error


def some_batches(rows: Any, count: int, batch_size: int, packs_with: Any, config: LessonConfig) -> list[Any]:
    """Evenly spaced rows of the data, or the first of a stream, in batches.

    Left as text, because tokenizing all the data first would take long; packed if `packs_with` is a tokenizer.
    """
    if hasattr(rows, "select"):
        few = min(len(rows), count)
        rows = rows.select([index * len(rows) // few for index in range(few)])
    some = list(islice(rows, count))
    if packs_with:
        from apt_model.data.dataset import placed
        from apt_model.data.encoded import as_columns
        from apt_model.data.notices import untold
        from apt_model.data.packing import pack_rows

        with placed(rows):
            packed = pack_rows(some, packs_with, config.train.max_length, tell=untold)
        columns = as_columns(packed, with_positions=True)
        some = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [some[at : at + batch_size] for at in range(0, len(some), batch_size)]


def gather(arguments: argparse.Namespace, config: LessonConfig) -> Material:
    """Load the models and data that the flags name, on all ranks; of a model that is sharded rank 0 alone has weights.

    Raises:
        ConfigError, DataError, ModelError: what cannot be loaded or does not go together.
    """
    _check_batches(arguments, config)
    with importing(config.display.lang):
        from apt_model.distill.fsdp import wanted_roles
        from apt_model.distill.students.fresh import parse_student
        from apt_model.models.lora import parse_lora

    told: list[str] = []
    with ranks().agreed("load models and data"):
        sizes = parse_student(arguments.student)
        lora = parse_lora(arguments.lora) if arguments.lora is not None else None
        if lora is not None and sizes is not None and not config.train.merge_adapters:
            fix = "add --merge-adapters, or give --student a saved model"
            raise ConfigError("adapters alone would be saved, but their base model is new and is not saved", fix=fix)
        prepare(config)
        shards = wanted_roles(config.train, cached=arguments.teacher_cache is not None)
        rows, looked_at = _load_data(arguments, config, told)
        is_received = "teacher" in shards and not ranks().is_first
        teacher, pattern, tokenizer = load_teacher(arguments, config, is_received=is_received)
    packs_with = arguments.packing and tokenizer
    make = StudentMaker(
        name=arguments.student,
        sizes=sizes,
        lora=lora,
        pattern=pattern,
        tokenizer=tokenizer,
        text=lambda: some_batches(rows, LOOKED_AT, arguments.batch_size, packs_with, config),
        config=config,
        shards=shards,
    )
    student, student_tokenizer = make()
    return Material(
        teacher=teacher,
        student=student,
        remake=lambda: make()[0],
        teacher_tokenizer=tokenizer,
        student_tokenizer=student_tokenizer,
        rows=rows,
        looked_at=looked_at,
        split=partial(set_aside, arguments=arguments, config=config, told=told) if splits_blocks(arguments) else None,
        told=told,
        batch_size=arguments.batch_size,
        packing=bool(arguments.packing),
        streaming=arguments.streaming,
    )


def _check_batches(arguments: argparse.Namespace, config: LessonConfig) -> None:
    if arguments.batch_size < 1:
        raise ConfigError("batch_size is too small", got=arguments.batch_size, expected="1 or more")
    if arguments.packing and config.distill.cross_tokenizer != "refuse":
        got, fix = f"cross_tokenizer={config.distill.cross_tokenizer}", "leave --packing out"
        raise ConfigError("--packing does not work with different tokenizers", got=got, fix=fix)


def _load_data(arguments: argparse.Namespace, config: LessonConfig, told: list[str]) -> tuple[Any, Any]:
    """Training rows, and validation rows or None."""
    with importing(config.display.lang):
        from apt_model.data.dataset import load_dataset

    how = {name: getattr(arguments, name) for name in ("text_column", "columns", "streaming")}
    how["tell"] = collector(told, config.display.lang)
    tell_overruled(arguments, how["tell"])
    validation = arguments.validation_data or []
    are_files = all(Path(one).is_file() for one in validation)  # which have no splits
    with waiting(config.display.lang, "data"):
        rows = load_dataset(arguments.data, split=arguments.split, **how)
        split = "train" if are_files else arguments.split
        looked_at = load_dataset(validation, split=split, **how) if validation else None
    if looked_at is not None or splits_blocks(arguments):
        return rows, looked_at
    return set_aside(rows, arguments, config, told)


def prepare(config: LessonConfig) -> None:
    """Set the seed, and refuse a missing device or tracker, before anything is loaded."""
    with importing(config.display.lang):
        from accelerate.utils import set_seed

        from apt_model.models.devices import pick_device
        from apt_model.plugins.trackers import refuse_missing

    refuse_missing(config.display.report_to)
    pick_device(config.train.device)
    if config.train.teacher_device is not None:
        pick_device(config.train.teacher_device)
    set_seed(config.train.seed)
