"""The entry point `distill`: check models, data and settings, put the models on their devices, train the student.

Knows nothing of what an event means or how it is shown: with any audience, or none, the student is the same to the last
bit.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from apt_model.config import LessonConfig
from apt_model.data.notices import KeyedNotice, Tell
from apt_model.distill.assembly import assemble
from apt_model.distill.checks import check_trainable, refuse_shared_weights
from apt_model.distill.fsdp import shard_models
from apt_model.distill.inputs import Data, Keeping, Models, Watching
from apt_model.distill.interrupt import Stop, stop_on_signals
from apt_model.distill.run import TrainingRun
from apt_model.distill.setup import make_accelerator, trained
from apt_model.distill.teachers.cross_tokenizer import CrossTeacher, teachers_own_tokenizer
from apt_model.distill.teachers.live import TeacherSource, as_source
from apt_model.errors import AptModelError, ConfigError
from apt_model.events.records import RunFinished
from apt_model.models.devices import accelerate_state_of_our_own, pick_device
from apt_model.models.generation_settings import complete_settings
from apt_model.models.lora import has_adapters, refuse_other_adapters
from apt_model.models.modes import frozen
from apt_model.models.output_head import refuse_unheard
from apt_model.models.quiet import quiet_fsdp
from apt_model.models.wide_matmul import full_width
from apt_model.ranks.group import ranks


def distill(
    models: Models,
    data: Data,
    *,
    config: LessonConfig,
    device: torch.device,
    watching: Watching,
    keeping: Keeping | None = None,
) -> RunFinished:
    """Knowledge distillation: train `models.student` on the teacher's logits and the labels of `data.train`.

    Args:
        models: the student is handed back in eval mode, its `generation_config` completed by the teacher's; the
            teacher's weights, modes and `requires_grad` are unchanged. What `fsdp` names is handed back sharded.
        data: training and validation batches.
        config: loss, epochs or steps, precision. Of its display section, only `sample_frequency`, `given_tokens`,
            `show_on` and the exams' settings are read.
        device: where to train.
        watching: the audience, and what it is shown.
        keeping: checkpoints; None: none are written.

    Returns:
        The verdict, as the audience scored it.

    Raises:
        ConfigError, DataError, ModelError: before the first step wherever that is possible.
        NumericError: loss or gradient is not finite; raised before the optimizer step, so the weights are still good.
        Interrupted: SIGTERM or Ctrl-C, after the run was saved.
    """
    keeping = keeping or Keeping()
    with ranks().session(patience=config.train.rank_patience, last_good=keeping.last_good):
        return _distill(models, data, config=config, device=device, watching=watching, keeping=keeping)


def _distill(
    models: Models, data: Data, *, config: LessonConfig, device: torch.device, watching: Watching, keeping: Keeping
) -> RunFinished:
    _refuse_contradictions(models, data, config)
    place = pick_device(config.train.teacher_device) if config.train.teacher_device is not None else None
    other = teachers_own_tokenizer(config.distill, models.teacher, models.tokenizer, models.teacher_tokenizer)
    if config.train.seed is not None:
        set_seed(config.train.seed)
    teacher, student = models.teacher, models.student
    # What the run must not leave behind, each undone at its end: accelerate's process-wide state; the teacher without
    # gradients (sharded before that, as its parameters are others then); the student in train mode; float32 products by
    # oneDNN where that is faster; our signal handlers.
    with (
        _on_processes(models, config, device) as accelerator,
        frozen(teacher) if isinstance(teacher, nn.Module) else nullcontext(),
        trained(student),
        full_width(*_on_cpu(models, device, place or device), setting=config.train.wide_matmul),
        _listening(keeping) as stop,
    ):
        source = _source(models, other, accelerator.device, place)  # under a launcher, each process has its own
        models = replace(models, teacher_tokenizer=other)  # None where the ids are the same: one tokenizer serves both
        added: list[KeyedNotice] = []
        complete_settings(student, None if other is not None else teacher, models.tokenizer, tell=_into(added))
        parts = assemble(
            models,
            data,
            source=source,
            config=config,
            accelerator=accelerator,
            watching=watching,
            keeping=keeping,
        )
        if accelerator.process_index:  # rank 0 goes on with the seed; each other drops out other numbers
            set_seed((config.train.seed or 0) + accelerator.process_index)
        run = TrainingRun(
            models,
            parts,
            config=config,
            accelerator=accelerator,
            notices=(*watching.notices, *added),
            keeping=keeping,
            stop=stop,
        )
        try:
            return run.all_epochs()
        except AptModelError as error:
            error.last_good = keeping.last_good()
            raise


@contextmanager
def _on_processes(models: Models, config: LessonConfig, device: torch.device) -> Iterator[Accelerator]:
    """Context manager with the run's accelerator; the models that are to be sharded are sharded, and stay so."""
    with accelerate_state_of_our_own(), quiet_fsdp():
        accelerator = make_accelerator(device, config.train.mixed_precision)
        shard_models(models, config.train, accelerator)
        yield accelerator


def _refuse_contradictions(models: Models, data: Data, config: LessonConfig) -> None:
    """Refuse models and settings that cannot be trained together, before anything is changed."""
    if config.display.show_on == "validation" and data.validation is None:
        raise ConfigError("show_on is 'validation', but there is no validation data", fix="pass eval_dataloader=")
    refuse_unheard(models.student, models.tokenizer, "student")
    if isinstance(models.teacher, nn.Module):
        refuse_unheard(models.teacher, models.teacher_tokenizer or models.tokenizer, "teacher")
        refuse_shared_weights(models.student, models.teacher)
    check_trainable(models.student, models.optimizer)
    if has_adapters(models.student) and not config.train.merge_adapters:
        refuse_other_adapters(models.student)
    if models.scheduler is not None and models.optimizer is None:
        raise ConfigError("a scheduler needs the optimizer that it schedules", fix="pass optimizer= too")


def _into(notices: list[KeyedNotice]) -> Tell:
    """Gathers what is told, for the run to tell at its start."""

    def tell(key: str, /, **values: str | int | float) -> None:
        notices.append((f"notice.{key}", values))

    return tell


def _source(models: Models, other: Any, device: torch.device, place: torch.device | None) -> TeacherSource:
    """The teacher as a source of logits on `device`, computed in `place` (None: there); `other`: its own tokenizer."""
    if other is not None and isinstance(models.teacher, nn.Module):
        return CrossTeacher(
            models.teacher, device, place, tokenizer=other, student_tokenizer=models.tokenizer, student=models.student
        )
    return as_source(models.teacher, device, place)


def _on_cpu(models: Models, device: torch.device, place: torch.device) -> list[nn.Module | None]:
    """The models that compute on the CPU: the student if `device` is the CPU, the teacher if `place` is."""
    teacher = models.teacher if isinstance(models.teacher, nn.Module) else models.teacher.model
    return [model for model, where in ((models.student, device), (teacher, place)) if where.type == "cpu"]


def _listening(keeping: Keeping) -> AbstractContextManager[Stop]:
    """Context manager that handles SIGTERM and Ctrl-C, but only in a run that writes checkpoints."""
    return stop_on_signals() if keeping.checkpoints is not None else nullcontext(Stop())
