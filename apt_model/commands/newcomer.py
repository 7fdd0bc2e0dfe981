"""Build the student that `--student` describes and print a summary. Knows nothing of how it will be trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apt_model.commands.console import print_line, speaker, teller, waiting
from apt_model.config import LessonConfig
from apt_model.ranks.group import ranks

LOOKED_AT = 64  # calibration rows, read by the teacher before it is cut


@dataclass(frozen=True, kw_only=True)
class StudentMaker:
    """Makes the untrained student that `--student` and `--lora` describe, on all ranks.

    Where its weights are sent by rank 0 later, the other ranks make it on the meta device.

    Attributes:
        name: directory or hub id, unless there are `sizes`.
        sizes: what `parse_student` returned.
        lora: adapters to add, or None.
        pattern: the teacher or its config, for a student of these sizes.
        tokenizer: the teacher's.
        text: reads some batches of training data, to calibrate a cut.
        config: all settings.
        shards: roles of the models that are sharded over the ranks.
    """

    name: str
    sizes: Mapping[str, Any] | None
    lora: Any
    pattern: Any
    tokenizer: Any
    text: Callable[[], Sequence[Any]]
    config: LessonConfig
    shards: Sequence[str]

    def __call__(self) -> tuple[Any, Any]:
        """The student and its own tokenizer, None for a new student."""
        with ranks().agreed("load the student"):
            student, own = self._loaded() if self.sizes is None else (self._made(self.sizes), None)
        if self._is_described:
            student = self._as_described(student)
        with ranks().agreed("add adapters to the student"):
            return self._adapted(student), own

    @property
    def _is_described(self) -> bool:
        """Whether ranks other than 0 build a new student by the config that rank 0 came to; a cut reads weights."""
        is_cut = self.sizes is not None and self.sizes.get("init") == "teacher"
        return self.sizes is not None and ("student" in self.shards or (is_cut and "teacher" in self.shards))

    def _loaded(self) -> tuple[Any, Any]:
        import torch

        from apt_model.models.pretrained import load_model

        is_received = "student" in self.shards and not ranks().is_first
        with waiting(self.config.display.lang, "student", name=self.name):
            student, own, _ = load_model(
                self.name,
                device=torch.device("meta") if is_received else None,
                tell=teller(self.config.display.lang),
            )
        return student, own

    def _made(self, sizes: Mapping[str, Any]) -> Any:
        if self._is_described and not ranks().is_first:
            return None
        return make_student(sizes, self.pattern, self.tokenizer, self.text(), self.config)

    def _as_described(self, student: Any) -> Any:
        from apt_model.distill.students.fresh import description_of, student_without_weights

        description = ranks().gather(None if student is None else description_of(student), "describe the student")[0]
        return student_without_weights(description, self.pattern) if student is None else student

    def _adapted(self, student: Any) -> Any:
        from apt_model.models.lora import add_lora

        base = self.name if self.sizes is None else None
        return student if self.lora is None else add_lora(student, self.lora, base=base)


def make_student(
    sizes: Mapping[str, Any], teacher: Any, tokenizer: Any, batches: Sequence[Any], config: LessonConfig
) -> Any:
    """The student with the sizes that `parse_student` returned; `batches` of training data calibrate the cut.

    Raises:
        ModelError: sizes that the architecture cannot have, or a teacher that cannot be cut. DataError: no text.
    """
    from apt_model.distill.students.fresh import create_compressed_model, looks_at_text

    if not looks_at_text(sizes):
        return create_compressed_model(teacher, **sizes)
    from apt_model.distill.students.shrink import shrink
    from apt_model.render.bar import ProgressBar
    from apt_model.render.sentences import duration, percent
    from apt_model.render.terminal import make_console

    say = speaker(config.display.lang)
    print_line(say("shrink.plan"))
    wanted = {name: value for name, value in sizes.items() if name != "init"}
    how = {"tokenizer": tokenizer, "max_length": config.train.max_length}
    with ProgressBar(make_console(), say) as bar:
        found = shrink(teacher, batches, **how, **wanted, progress=bar.advance)
    before, after = teacher.config, found.student.config
    if len(found.layers) < before.num_hidden_layers:
        layers = " ".join(str(index + 1) for index in found.layers)
        print_line(say("shrink.layers", layers=layers, depth=before.num_hidden_layers))
    if after.hidden_size < before.hidden_size:
        energy = percent(found.energy_kept)
        print_line(say("shrink.width", before=before.hidden_size, after=after.hidden_size, energy=energy))
    print_line(say("shrink.cost", time=duration(found.seconds), tokens=f"{found.tokens:,}"))
    return found.student
