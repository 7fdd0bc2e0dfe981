"""Visual distillation: the training as a lesson that can be watched."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.config import LessonConfig
from apt_model.distill.inputs import Data, Models
from apt_model.distill.teachers.live import TeacherSource
from apt_model.events.records import RunFinished
from apt_model.events.sinks import Sink
from apt_model.plugins.given import Given
from apt_model.plugins.session import RunFolder, Viewers, run_session
from apt_model.render.watch import default_sink
from apt_model.teaching.classroom import Classroom
from apt_model.teaching.similarity import Similarity, text_similarity


class VisualDistillationPlugin(Classroom):
    """Trains a student from a teacher and shows the training as a lesson.

    Args:
        config: flat keys as in the guide (`temperature`, `sample_frequency`, ..., or `preset`), a `LessonConfig`, or an
            object such as transformers' `TrainingArguments`: its `output_dir` is then the `run_dir`.
        similarity: `(teacher text, student text) -> 0..1`; difflib's ratio unless given.

    Attributes:
        topic_keywords: keywords by topic; add, change or remove topics at any time.
        stats: `total_samples`, `avg_laziness` (percent), `topic_distribution`, `epoch_laziness` (percent) so far.

    Raises:
        ConfigError: names every unknown key and bad value at once.
    """

    def __init__(
        self, config: Mapping[str, Any] | LessonConfig | object = None, *, similarity: Similarity = text_similarity
    ) -> None:
        self._given = Given.of(config)
        self.config = self._given.config
        super().__init__(self.config.display, similarity=similarity)

    def visual_distill_model(
        self,
        student_model: nn.Module,
        teacher_model: nn.Module | TeacherSource,
        train_dataloader: Iterable[Any],
        optimizer: Optimizer | None = None,
        tokenizer: Any = None,
        num_epochs: int | None = None,
        device: str | torch.device | None = None,
        *,
        teacher_tokenizer: Any = None,
        eval_dataloader: Iterable[Any] | None = None,
        scheduler: LRScheduler | None = None,
        run_dir: str | Path | None = None,
        resume_from: str | Path | None = None,
        resume_anyway: bool = False,
        branch_from: str | Path | None = None,
        branch_at: int | None = None,
        data_names: Sequence[str] = (),
        sinks: Sequence[Sink] | None = None,
    ) -> RunFinished:
        """Train `student_model` in place.

        Args:
            student_model: maps token ids (B, L) to logits (B, L, V); handed back in eval mode.
            teacher_model: the same, larger; unchanged afterwards. Or a `CachedTeacher`.
            train_dataloader: a DataLoader or any iterable; batches are dicts, tuples, tensors or lists of strings.
            optimizer: AdamW at the config's `learning_rate` where None, with its schedule.
            tokenizer: anything with `decode`; only batches of strings need one that encodes.
            num_epochs: passes over the data; None: as the settings say, 3 unless they name another number.
            device: None: as the settings say, "cuda" unless they name another; where this machine lacks it, the CPU
                replaces it, with a notice.
            teacher_tokenizer: the teacher's own; if it is another one, the config's `cross_tokenizer` has to say how to
                compare, and the batches have to be rows of text.
            eval_dataloader: data to look at, not to learn from: loss, agreement and laziness on it after each epoch;
                with `show_on="validation"` the cards show its texts too.
            scheduler: steps once after each optimizer step.
            run_dir: keeps the record, checkpoints and the student there.
            resume_from: go on from a checkpoint, or from the newest whole one of a run directory; models, data and
                settings are given as they were.
            resume_anyway: resume even if settings, models or data have changed.
            branch_from: run directory of another run, which is left as it is: go on from its checkpoint after
                `branch_at` steps (None: its newest) as a run of one's own in `run_dir`. Models, data and optimizer are
                given as they were; settings may be others.
            branch_at: see `branch_from`.
            data_names: what the student's model card (README.md) calls the training data.
            sinks: who watches; unless given, cards in a notebook or on the terminal.

        Returns:
            The verdict.

        Raises:
            ConfigError, DataError, ModelError, NumericError, StorageError: see `apt_model.errors`.
        """
        self._guard.failures.clear()
        if sinks is None:
            sink = self._guard.run("default_sink", lambda: default_sink(self.config.display), None)
            sinks = [sink] if sink is not None else []
        return run_session(
            self._given.with_call(num_epochs=num_epochs, device=device),
            Models(
                student=student_model,
                teacher=teacher_model,
                tokenizer=tokenizer,
                teacher_tokenizer=teacher_tokenizer,
                optimizer=optimizer,
                scheduler=scheduler,
            ),
            Data(train=train_dataloader, validation=eval_dataloader, names=data_names),
            folder=RunFolder.of(
                run_dir if run_dir is not None else self._given.run_dir,
                resume_from,
                resume_anyway,
                branch_from=branch_from,
                branch_at=branch_at,
            ),
            viewers=Viewers(sinks=sinks, scorer=self._scorer, guard=self._guard, notices=self._given.notices),
        )


def quick_visual_distill(
    student_model: nn.Module,
    teacher_model: nn.Module | TeacherSource,
    train_dataloader: Iterable[Any],
    tokenizer: Any,
    config: Mapping[str, Any] | LessonConfig | object = None,
    num_epochs: int | None = None,
    device: str | torch.device | None = None,
    *,
    eval_dataloader: Iterable[Any] | None = None,
    run_dir: str | Path | None = None,
) -> RunFinished:
    """One call: a `VisualDistillationPlugin` with `config`, its own optimizer, and a lesson of `num_epochs`."""
    return VisualDistillationPlugin(config).visual_distill_model(
        student_model=student_model,
        teacher_model=teacher_model,
        train_dataloader=train_dataloader,
        eval_dataloader=eval_dataloader,
        tokenizer=tokenizer,
        num_epochs=num_epochs,
        device=device,
        run_dir=run_dir,
    )
