"""The distillation loop: batches in, a taught student and a stream of events out.

Tensors end here. What an event means, and how it looks, is the audience's business; with or without one, the student
comes out the same to the last bit.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.config import LessonConfig
from apt_model.distill.checkpoints.manager import Checkpoints, Stateful
from apt_model.distill.checks import check_trainable, refuse_shared_weights
from apt_model.distill.interrupt import Stop, stop_on_signals
from apt_model.distill.run import Run
from apt_model.distill.setup import make_accelerator, trained
from apt_model.distill.teachers.cross_tokenizer import CrossTeacher, others_tokenizer
from apt_model.distill.teachers.live import TeacherSource
from apt_model.errors import AptModelError, ConfigError
from apt_model.events.records import RunFinished
from apt_model.events.sinks import Audience
from apt_model.models.devices import accelerate_state_of_our_own, pick_device
from apt_model.models.modes import frozen
from apt_model.models.wide_matmul import full_width


def distill(
    *,
    student: nn.Module,
    teacher: nn.Module | TeacherSource,
    batches: Iterable[Any],
    audience: Audience,
    config: LessonConfig,
    device: torch.device,
    eval_batches: Iterable[Any] | None = None,
    tokenizer: Any = None,
    teacher_tokenizer: Any = None,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    checkpoints: Checkpoints | None = None,
    keep_too: Mapping[str, Stateful] | None = None,
    observe_samples: bool = True,
    holds_exams: bool = False,
    notices: Iterable[tuple[str, Mapping[str, str | int | float]]] = (),
) -> RunFinished:
    """Teach `student` what `teacher` knows.

    Args:
        student: any module from token ids to logits; trained in place, handed back in eval mode.
        teacher: the same, larger; frozen meanwhile, its bytes and flags unchanged afterwards. Or a `CachedTeacher`.
        batches: a DataLoader or any iterable, of anything that `to_batch` takes; iterated once an epoch.
        audience: gets every event; nothing it does reaches the training.
        config: weights, length, precision; of its display only `sample_frequency`, `given_tokens` and `show_on`
            matter here.
        device: where to train.
        eval_batches: data to look at, not to learn from: measured after each epoch by the main process.
        tokenizer: decodes what is shown, encodes batches of strings.
        teacher_tokenizer: the teacher's own; if it is another one, `cross_tokenizer` has to say how to compare, and the
            batches have to be text.
        optimizer: AdamW with weight decay on matrices only, where None; its rate then follows `lr_scheduler_type`.
        scheduler: steps after each optimizer step; with an optimizer of your own, None leaves its rate alone.
        checkpoints: where the run is kept while it goes on, and taken up from; SIGTERM and Ctrl-C then save it first.
        keep_too: what else goes into a checkpoint: the lesson's statistics, the place in the record.
        observe_samples: read texts out of every `sample_frequency`-th batch.
        holds_exams: hold exams even where the settings have no prompts for one.
        notices: (key, values) of sentences that the audience should hear once the run has started.

    Returns:
        The verdict, as the audience scored it.

    Raises:
        ConfigError, DataError, ModelError: before the first step wherever that is possible.
        NumericError: loss or gradient is not finite; raised before the optimizer step, so the weights are still good.
        Interrupted: SIGTERM or Ctrl-C, after the run was saved.
    """
    if config.display.show_on == "validation" and eval_batches is None:
        raise ConfigError("show_on is 'validation', but there is no validation data", fix="pass eval_dataloader=")
    if isinstance(teacher, nn.Module):
        refuse_shared_weights(student, teacher)
    check_trainable(student, optimizer)
    if scheduler is not None and optimizer is None:
        raise ConfigError("a scheduler needs the optimizer that it was made for", fix="pass optimizer= too")
    place = pick_device(config.train.teacher_device) if config.train.teacher_device is not None else None
    other = others_tokenizer(config.distill, teacher, tokenizer, teacher_tokenizer)
    if config.train.seed is not None:
        set_seed(config.train.seed)
    source: nn.Module | TeacherSource = teacher
    if other is not None and isinstance(teacher, nn.Module):
        source = CrossTeacher(
            teacher,
            device,
            place,
            tokenizer=other,
            student_tokenizer=tokenizer,
            student=student,
            config=config.distill,
        )
    at = ((student, device), (teacher if isinstance(teacher, nn.Module) else teacher.model, place or device))
    on_cpu = [model for model, where in at if where.type == "cpu"]
    with (
        accelerate_state_of_our_own(),
        frozen(teacher) if isinstance(teacher, nn.Module) else nullcontext(),
        trained(student),
        full_width(*on_cpu),
        _listening(checkpoints) as stop,
    ):
        run = Run(
            accelerator=make_accelerator(device, config.train.mixed_precision),
            student=student,
            teacher=source,
            batches=batches,
            eval_batches=eval_batches,
            audience=audience,
            config=config,
            tokenizer=tokenizer,
            teacher_tokenizer=other,
            teacher_place=place,
            observe_samples=observe_samples,
            holds_exams=holds_exams,
            checkpoints=checkpoints,
            stop=stop,
        )
        run.prepare(optimizer, scheduler, keep_too or {})
        try:
            return run.all_epochs(notices)
        except AptModelError as error:
            error.last_good = checkpoints.last_good() if checkpoints is not None else None
            raise
        finally:
            run.beyond.leave()


def _listening(checkpoints: Checkpoints | None) -> AbstractContextManager[Stop]:
    """Signals are listened to only where something can be saved."""
    return stop_on_signals() if checkpoints is not None else nullcontext(Stop())
