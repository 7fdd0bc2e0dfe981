"""Who teaches a lesson of `apt-model distill`: a model, or what a cache kept of one. Knows nothing of students."""

import argparse
from pathlib import Path
from typing import Any

from apt_model.commands.options import Parser
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError


def add_teacher(parser: Parser) -> None:
    """Flags that say who teaches."""
    parser.add_argument("--teacher", metavar="DIR_OR_ID", help="model directory, GGUF file or hub id")
    add_precision(parser)
    parser.add_argument(
        "--teacher-cache",
        metavar="CACHE",
        help="what cache-teacher kept, instead of a teacher; with one, that it is the same is checked",
    )


def add_precision(parser: Parser) -> None:
    """Flags that say in which numbers a teacher answers."""
    parser.add_argument(
        "--teacher-dtype",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="fp32",
        help="of the teacher's weights; auto: as they are stored (default: fp32)",
    )
    parser.add_argument(
        "--teacher-quantization",
        choices=("bnb-8bit", "bnb-4bit"),
        help="let bitsandbytes quantize the teacher's weights while they are read",
    )


def load_precisely(arguments: argparse.Namespace, config: LessonConfig) -> tuple[Any, Any]:
    """The teacher and its tokenizer, in the numbers that the flags say, where it will answer if it cannot be moved.

    Raises:
        ModelError: no such model. ConfigError: a package is missing, or a device.
    """
    import torch

    from apt_model.models.devices import pick_device
    from apt_model.models.pretrained import load_model

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    teacher, tokenizer, _ = load_model(
        arguments.teacher,
        dtype=dtypes.get(arguments.teacher_dtype, "auto"),
        quantization=arguments.teacher_quantization,
        device=pick_device(config.train.teacher_device or config.train.device),
    )
    return teacher, tokenizer


def cached_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that a cache was made with, for a lesson that gives none; none without a cache.

    Raises:
        ConfigError: neither a teacher nor a cache.
    """
    if arguments.teacher_cache is None:
        if arguments.teacher is None:
            raise ConfigError("there is no teacher", fix="give --teacher, or --teacher-cache")
        return {}
    from apt_model.distill.teachers.cache.manifest import read_manifest

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
    if arguments.teacher_cache is None:
        teacher, tokenizer = load_precisely(arguments, config)
        return teacher, teacher, tokenizer
    from apt_model.distill.teachers.cached import CachedTeacher

    cached = CachedTeacher(arguments.teacher_cache)
    cached.refuse_other(
        temperature=config.distill.temperature, max_length=config.train.max_length, packing=arguments.packing
    )
    if arguments.teacher is None:
        return cached, *cached.load_config()
    teacher, tokenizer = load_precisely(arguments, config)
    cached.refuse_other(teacher=teacher, tokenizer=tokenizer)
    return cached, teacher, tokenizer
