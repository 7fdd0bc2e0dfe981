"""A student that a description asks for: fresh, copied, or cut out of its teacher with a word on how it went."""

from collections.abc import Mapping, Sequence
from typing import Any

from apt_model.commands.console import print_line, speaker
from apt_model.config import LessonConfig

LOOKED_AT = 64  # rows that a teacher reads before it is cut


def make_student(
    sizes: Mapping[str, Any], teacher: Any, tokenizer: Any, batches: Sequence[Any], config: LessonConfig
) -> Any:
    """The student of a description that `parse_student` has read; `batches` are some of what it will be taught on.

    Raises:
        ModelError: sizes that the teacher's kind cannot have, or a teacher that cannot be cut. DataError: no text.
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
