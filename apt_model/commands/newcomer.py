"""Build the student that `--student` describes and print a summary. Knows nothing of how it will be trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from apt_model.commands.console import print_line, speaker
from apt_model.config import LessonConfig

LOOKED_AT = 64  # calibration rows, read by the teacher before it is cut


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
