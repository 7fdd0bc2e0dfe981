"""Who teaches a lesson of `apt-model distill`: a model, or what a cache kept of one. Knows nothing of students."""

import argparse
from pathlib import Path
from typing import Any

from apt_model.commands.options import Parser
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError


def add_teacher(parser: Parser) -> None:
    """Flags that say who teaches."""
    parser.add_argument("--teacher", metavar="DIR_OR_ID", help="model directory or hub id")
    parser.add_argument(
        "--teacher-cache",
        metavar="CACHE",
        help="what cache-teacher kept, instead of a teacher; with one, that it is the same is checked",
    )


def cached_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that a cache was made with, for a lesson that gives none; none without a cache.

    Raises:
        ConfigError: neither a teacher nor a cache.
    """
    if arguments.teacher_cache is None:
        if arguments.teacher is None:
            raise ConfigError("there is no teacher", fix="give --teacher, or --teacher-cache")
        return {}
    from apt_model.distill.manifest import read_manifest

    manifest = read_manifest(Path(arguments.teacher_cache))
    if manifest is None:
        return {}
    settings = manifest.identity.settings
    arguments.packing = arguments.packing or settings.packing
    return {"temperature": settings.temperature, "max_length": settings.max_length}


def load_teacher(arguments: argparse.Namespace, config: LessonConfig) -> tuple[Any, Any, Any]:
    """The teacher, what a student is made after (the model, or a cache's config of it), and the tokenizer.

    Raises:
        ModelError: no such model. DataError: a cache of something else, or none. StorageError: a damaged one.
    """
    from apt_model.training.checkpoint import load_model

    if arguments.teacher_cache is None:
        teacher, tokenizer, _ = load_model(arguments.teacher)
        return teacher, teacher, tokenizer
    from apt_model.distill.cached_teacher import CachedTeacher

    cached = CachedTeacher(arguments.teacher_cache)
    cached.refuse_other(
        temperature=config.distill.temperature, max_length=config.train.max_length, packing=arguments.packing
    )
    if arguments.teacher is None:
        return cached, *cached.load_config()
    teacher, tokenizer, _ = load_model(arguments.teacher)
    cached.refuse_other(teacher=teacher, tokenizer=tokenizer)
    return cached, teacher, tokenizer
