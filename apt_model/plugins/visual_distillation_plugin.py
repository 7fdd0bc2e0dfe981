"""Visual distillation: the training as a lesson that can be watched."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from apt_model.config import LessonConfig
from apt_model.distill.teachers import TeacherSource
from apt_model.events.records import RunFinished
from apt_model.events.sinks import Guard, Sink
from apt_model.plugins.session import read_config, run_session
from apt_model.render.terminal import TerminalSink
from apt_model.teaching.scorer import LessonScorer
from apt_model.teaching.similarity import Similarity, text_similarity
from apt_model.teaching.topics import TopicKeywords, default_topics


class VisualDistillationPlugin:
    """Trains a student from a teacher and shows the training as a lesson.

    Args:
        config: flat keys as in the guide (`temperature`, `sample_frequency`, ..., or `preset`), or a `LessonConfig`.
        similarity: `(teacher text, student text) -> 0..1`; difflib's ratio unless given.

    Attributes:
        topic_keywords: keywords by topic; add, change or remove topics at any time.
        stats: `total_samples`, `avg_laziness` (percent), `topic_distribution`, `epoch_laziness` (percent) so far.

    Raises:
        ConfigError: names every unknown key and bad value at once.
    """

    def __init__(
        self, config: Mapping[str, Any] | LessonConfig | None = None, *, similarity: Similarity = text_similarity
    ) -> None:
        self.config = read_config(config)
        self._guard = Guard()
        self._scorer = LessonScorer(
            self.config.display,
            default_topics(),
            comment=lambda laziness_percent, loss: self.generate_comment(laziness_percent, loss),
            similarity=similarity,
            guard=self._guard,
        )

    @property
    def topic_keywords(self) -> TopicKeywords:
        """Keywords by topic; changes count from the next card on."""
        return self._scorer.topics

    @topic_keywords.setter
    def topic_keywords(self, topics: TopicKeywords) -> None:
        self._scorer.topics = topics

    @property
    def stats(self) -> dict[str, Any]:
        """Statistics of the lesson so far; zeros and empty before the first card."""
        return self._scorer.stats()

    def generate_comment(self, laziness_percent: float, loss: float) -> str:
        """The remark on a card. Override it, in a subclass or on the instance, to say it your way."""
        return self._scorer.comment(laziness_percent, loss)

    def visual_distill_model(
        self,
        student_model: nn.Module,
        teacher_model: nn.Module | TeacherSource,
        train_dataloader: Iterable[Any],
        optimizer: Optimizer | None = None,
        tokenizer: Any = None,
        num_epochs: int = 3,
        device: str | torch.device = "cuda",
        *,
        eval_dataloader: Iterable[Any] | None = None,
        scheduler: LRScheduler | None = None,
        run_dir: str | Path | None = None,
        sinks: Sequence[Sink] | None = None,
    ) -> RunFinished:
        """Train `student_model` in place.

        Args:
            student_model: maps token ids (B, L) to logits (B, L, V); handed back in eval mode.
            teacher_model: the same, larger; unchanged afterwards. Or a `CachedTeacher`.
            train_dataloader: a DataLoader or any iterable; batches are dicts, tuples, tensors or lists of strings.
            optimizer: AdamW at the config's `learning_rate` where None, with its schedule.
            tokenizer: anything with `decode`; only batches of strings need one that encodes.
            num_epochs: passes over the data.
            device: replaced by the CPU, with a notice, where this machine lacks it.
            eval_dataloader: data to look at, not to learn from: loss, agreement and laziness on it after each epoch;
                with `show_on="validation"` the cards show its texts too.
            scheduler: steps once after each optimizer step.
            run_dir: keeps the record and the student there.
            sinks: who watches; a terminal unless given.

        Returns:
            The verdict.

        Raises:
            ConfigError, DataError, ModelError, NumericError, StorageError: see `apt_model.errors`.
        """
        self._guard.failures.clear()
        if sinks is None:
            terminal = self._guard.run("TerminalSink", lambda: TerminalSink(self.config.display), None)
            sinks = [terminal] if terminal is not None else []
        return run_session(
            config=self.config,
            student_model=student_model,
            teacher_model=teacher_model,
            train_dataloader=train_dataloader,
            eval_dataloader=eval_dataloader,
            optimizer=optimizer,
            scheduler=scheduler,
            tokenizer=tokenizer,
            num_epochs=num_epochs,
            device=device,
            run_dir=run_dir,
            sinks=sinks,
            scorer=self._scorer,
            guard=self._guard,
        )


def quick_visual_distill(
    student_model: nn.Module,
    teacher_model: nn.Module | TeacherSource,
    train_dataloader: Iterable[Any],
    tokenizer: Any,
    config: Mapping[str, Any] | LessonConfig | None = None,
    num_epochs: int = 3,
    device: str | torch.device = "cuda",
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
