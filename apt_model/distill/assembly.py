"""Build the parts of a training run (grader, optimizer, validator, exam ...) from models, data and settings.

Knows which part needs what; knows nothing of the order in which they are used.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.config import LessonConfig
from apt_model.data.batch import Batch
from apt_model.data.notices import KeyedNotice
from apt_model.data.shares import Share
from apt_model.distill.cards import Cards
from apt_model.distill.checkpoints.run_state import Stateful
from apt_model.distill.checks import CausalityCheck, PackingTrial
from apt_model.distill.continuations import Continuations
from apt_model.distill.exam import Exam
from apt_model.distill.fixed_rows import RowSet, learned_source, spread_source
from apt_model.distill.grader import Grader
from apt_model.distill.identity import identity
from apt_model.distill.inputs import Data, Keeping, Models, Watching
from apt_model.distill.losses.layer_matching import Matcher
from apt_model.distill.nonfinite import NonFinite
from apt_model.distill.on_policy import OnPolicy
from apt_model.distill.optimizer_step import OptimizerStep
from apt_model.distill.readings import Readings
from apt_model.distill.reporter import Reporter
from apt_model.distill.setup import GivenSchedule, OwnSchedule, make_optimizer, make_schedule, run_length
from apt_model.distill.stages import Stages
from apt_model.distill.teachers.live import TeacherSource
from apt_model.distill.validation import Validator
from apt_model.events.records import ModelCard
from apt_model.models.forward import Forward, model_card, shared_vocabulary, vocabulary_of
from apt_model.models.lockstep import Lockstep
from apt_model.models.sharding import is_sharded, rest
from apt_model.ranks.collective import sum_gradients


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """The parts of a training run.

    Attributes:
        student: wrapped for training on the accelerator's device.
        teacher: None if it is a cache.
        share: this rank's share of the training data.
        epochs, total_steps: length of the run; `total_steps` is None where the data has no length.
        optimizer: the student's, not wrapped.
        schedule: what a checkpoint keeps of its learning rate; None if nothing changes the rate.
        has_no_schedule: the learning rate stays constant although a schedule is set, since the length is not known.
        identity: what must be the same on resuming; empty in a run without checkpoints.
        cards_of_models: name and size of teacher and student.
        vocabulary: columns of the logits that both heads have; None if one of them does not tell.
        matcher: layer matching; None unless the settings ask for it.
        on_policy: training on student-generated text; None unless the settings ask for it.
        lockstep: lets all processes take part where one of them runs a sharded model.
        causality: refuses models that see the tokens to predict.
        packing: tries out sharded models on packed rows, where all processes take part.
        grader, step: the loss and its gradient; the optimizer step.
        validator: measures on the validation data, each rank on its share.
        report, cards, exam, readings: emit events, cards, exams, and readings of the fixed rows.
        stages: keeps a small student's int8 weights for the browser.
    """

    student: nn.Module
    teacher: nn.Module | None
    share: Share
    epochs: int
    total_steps: int | None
    optimizer: Optimizer
    schedule: Stateful | None
    has_no_schedule: bool
    identity: Mapping[str, Any]
    cards_of_models: tuple[ModelCard, ModelCard]
    vocabulary: int | None
    matcher: Matcher | None
    on_policy: OnPolicy | None
    lockstep: Lockstep
    causality: CausalityCheck
    packing: PackingTrial
    grader: Grader
    step: OptimizerStep
    validator: Validator | None
    report: Reporter
    cards: Cards
    exam: Exam
    readings: Readings
    stages: Stages

    @property
    def projections(self) -> Matcher | None:
        """The matcher if it has parameters: they are trained with the student, and saved beside it in checkpoints."""
        return self.matcher if self.matcher is not None and any(True for _ in self.matcher.parameters()) else None

    def notices(self) -> Iterator[KeyedNotice]:
        """Notices on layer matching and on-policy training, if they are on."""
        yield from (part.notice for part in (self.matcher, self.on_policy) if part is not None)


def assemble(
    models: Models,
    data: Data,
    *,
    source: TeacherSource,
    config: LessonConfig,
    accelerator: Accelerator,
    watching: Watching,
    keeping: Keeping,
) -> Parts:
    """Build the parts of a run; the student is moved to its device and wrapped, nothing is learned yet.

    Raises:
        ConfigError, DataError, ModelError: models, data and settings do not go together.
    """
    student, train, report = models.student, config.train, _reporter(models, watching, accelerator)
    source.begin(config.distill)
    vocabulary = shared_vocabulary(source.vocabulary, vocabulary_of(student))
    matcher = Matcher.wanted(config.distill, student, source.model, device=accelerator.device, seed=train.seed or 0)
    on_policy = OnPolicy.wanted(
        config, student, source.model, accelerator=accelerator, tokenizer=models.tokenizer, vocabulary=vocabulary
    )
    grader = Grader(
        student=Forward(student, "student"),
        teacher=source,
        accelerator=accelerator,
        config=config.distill,
        train=train,
        matcher=matcher,
        say=report.say,
    )
    collate = models.collate(max_length=train.max_length, tell=report.notice)
    lockstep = Lockstep([one for one in (student, source.model) if one and is_sharded(one)], accelerator.device)
    validator = _validator(models, data, config, grader, lockstep, collate)
    share = Share(data.train, accelerator.process_index, accelerator.num_processes)
    epochs, total_steps = run_length(share, train)
    of_epoch, guard = share.steps_per_epoch(1), watching.audience.guard
    continuations = Continuations(
        teacher=source.model,
        tokenizer=models.tokenizer,
        teacher_tokenizer=models.teacher_tokenizer,
        accelerator=accelerator,
    )
    if matcher is not None and is_sharded(student):
        matcher.shard(accelerator.device)
    for model in lockstep.models:
        rest(model)  # a matcher has tried them out
    wrapped = student if is_sharded(student) else accelerator.prepare_model(student)
    sum_gradients(wrapped)
    makes_optimizer = models.optimizer is None
    optimizer = models.optimizer or make_optimizer(wrapped, train)
    own = make_schedule(optimizer, train, total_steps) if makes_optimizer else None
    varies = train.lr_scheduler_type != "constant_with_warmup" or train.warmup_ratio > 0
    return Parts(
        student=wrapped,
        teacher=source.model,
        share=share,
        epochs=epochs,
        total_steps=total_steps,
        optimizer=optimizer,
        schedule=OwnSchedule(optimizer, own) if own is not None else _given(optimizer, models.scheduler),
        has_no_schedule=makes_optimizer and total_steps is None and varies,
        identity=identity(config, models, data, source=source, optimizer=optimizer)
        if keeping.checkpoints is not None
        else {},
        cards_of_models=(source.card, model_card(student)),
        vocabulary=vocabulary,
        matcher=matcher,
        on_policy=on_policy,
        lockstep=lockstep,
        causality=CausalityCheck(
            {"teacher": source.model, "student": student}, accelerator.device, train.mixed_precision
        ),
        packing=PackingTrial(lockstep.models, accelerator),
        grader=grader,
        step=OptimizerStep(
            wrapped,
            optimizer,
            models.scheduler if own is None else own,
            grader=grader,
            nonfinite=NonFinite(train, grader=grader, report=report, keeper=keeping.checkpoints, lockstep=lockstep),
            accelerator=accelerator,
            config=train,
        ),
        validator=validator,
        report=report,
        cards=Cards(
            report,
            config.display,
            validator,
            continuations=continuations,
            guard=guard,
            read_alone=grader.read_alone,
            batches=(of_epoch, total_steps * train.gradient_accumulation_steps) if of_epoch and total_steps else None,
            wanted=watching.shows_cards,
        ),
        exam=Exam(
            config.display,
            report=report,
            guard=guard,
            continuations=continuations,
            by_itself=watching.holds_exams,
            listen=watching.asked,
        ),
        readings=Readings(
            config.display,
            _row_sets(models, data, config, grader, accelerator, collate=collate, length=(total_steps, vocabulary))
            if watching.takes_readings and report.speaks
            else (),
            report=report,
            guard=guard,
            total_steps=total_steps,
        ),
        stages=Stages(
            keeping.checkpoints.folder.parent if keeping.checkpoints is not None and report.speaks else None,
            student,
            tokenizer=models.tokenizer,
            guard=guard,
            total_steps=total_steps,
        ),
    )


def _given(optimizer: Optimizer, scheduler: LRScheduler | None) -> Stateful | None:
    """The caller's schedule in a checkpoint, if there is one."""
    return None if scheduler is None else GivenSchedule(optimizer, scheduler)


def _reporter(models: Models, watching: Watching, accelerator: Accelerator) -> Reporter:
    return Reporter(
        watching.audience,
        tokenizer=models.tokenizer,
        teacher_tokenizer=models.teacher_tokenizer,
        device=accelerator.device,
        speaks=accelerator.is_main_process,
    )


def _validator(
    models: Models,
    data: Data,
    config: LessonConfig,
    grader: Grader,
    lockstep: Lockstep,
    collate: Callable[[Any], Batch],
) -> Validator | None:
    if data.validation is None:
        return None
    return Validator(
        data.validation,
        collate=collate,
        grader=grader,
        given_tokens=config.display.given_tokens,
        bos=getattr(models.tokenizer, "bos_token_id", None),
        device=grader.device,
        lockstep=lockstep,
    )


def _row_sets(
    models: Models,
    data: Data,
    config: LessonConfig,
    grader: Grader,
    accelerator: Accelerator,
    *,
    collate: Callable[[Any], Batch],
    length: tuple[int | None, int | None],
) -> list[RowSet]:
    """The kinds of fixed rows that this data has; `length`: steps of the run, columns of the logits."""
    train, (steps, columns) = config.train, length
    make = partial(
        RowSet,
        collate=collate,
        models=grader,
        device=accelerator.device,
        columns=columns,
        cuts=isinstance(models.teacher, nn.Module),
    )
    learned = learned_source(
        data.train,
        steps=steps and steps * accelerator.num_processes,
        accumulation=train.gradient_accumulation_steps,
        device=accelerator.device,
    )
    if data.validation is None:
        return [make(learned, unseen=False)]
    return [make(spread_source(data.validation, accelerator.device), unseen=True), make(learned, unseen=False)]
