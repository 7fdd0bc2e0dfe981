"""The teacher of `apt-model distill`: a model, or a cache of its logits. Knows nothing of students."""

import argparse
from typing import Any

from apt_model.commands.console import teller, waiting
from apt_model.commands.options import Command
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError


def add_teacher(parser: Command) -> None:
    """Add the flags that name the teacher."""
    parser.add_argument("--teacher", metavar="DIR_OR_ID", help="model directory, GGUF file or hub id of the teacher")
    add_precision(parser)
    parser.add_argument(
        "--teacher-cache",
        metavar="CACHE",
        help="cache from cache-teacher, used instead of the teacher; sets temperature, max_length and packing unless "
        "given. With --teacher too: check that the cache is of that model",
    )


def add_precision(parser: Command) -> None:
    """Add the flags for the precision of the teacher's weights."""
    parser.add_argument(
        "--teacher-dtype",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="fp32",
        help="dtype of the teacher's weights; auto: as stored (default: fp32)",
    )
    parser.add_argument(
        "--teacher-quantization",
        choices=("bnb-8bit", "bnb-4bit"),
        help="quantize the teacher with bitsandbytes while loading it (default: no)",
    )


def load_precisely(
    arguments: argparse.Namespace, config: LessonConfig, *, is_received: bool = False
) -> tuple[Any, Any]:
    """The teacher, in the precision that the flags name, and its tokenizer; a quantized one on its device already.

    One that is received from rank 0 later is loaded without its weights.

    Raises:
        ModelError: the model cannot be loaded. ConfigError: a missing package or device.
    """
    import torch

    from apt_model.models.devices import pick_device
    from apt_model.models.pretrained import load_model

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    with waiting(config.display.lang, "teacher", name=arguments.teacher):
        teacher, tokenizer, _ = load_model(
            arguments.teacher,
            dtype=dtypes.get(arguments.teacher_dtype, "auto"),
            quantization=arguments.teacher_quantization,
            device=torch.device("meta")
            if is_received and arguments.teacher_quantization is None
            else pick_device(config.train.teacher_device or config.train.device),
            tell=teller(config.display.lang),
        )
    return teacher, tokenizer


def cached_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Defaults of `distill` from the settings that the cache was made with; empty without a cache.

    Raises:
        ConfigError: neither a teacher nor a cache is given.
    """
    if arguments.teacher_cache is None:
        if arguments.teacher is None:
            raise ConfigError("no teacher is named", fix="give --teacher or --teacher-cache")
        return {}
    from apt_model.distill.teachers.cache.manifest import read_manifest
    from apt_model.distill.teachers.cache.store import open_store

    manifest = read_manifest(open_store(arguments.teacher_cache))
    if manifest is None:
        return {}
    settings = manifest.identity.settings
    if arguments.packing is None:  # not typed: neither on nor off
        arguments.packing = settings.packing
    return {"temperature": settings.temperature, "max_length": settings.max_length}


def load_teacher(arguments: argparse.Namespace, config: LessonConfig, *, is_received: bool) -> tuple[Any, Any, Any]:
    """The teacher, the model or config to build a student from, and the teacher's tokenizer.

    A model that is received from rank 0 later is loaded without its weights.

    Raises:
        ModelError: the model cannot be loaded. DataError: no cache, or one made with another teacher, tokenizer or
            settings. StorageError: a damaged cache.
    """
    if arguments.teacher_cache is None:
        teacher, tokenizer = load_precisely(arguments, config, is_received=is_received)
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
