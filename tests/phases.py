"""`apt-model` as it is, but for a mark that it sets when a phase begins, and phases long enough to be hit twice.

python -m tests.phases PHASE MARK distill ...
"""

import importlib
import sys
import time
from functools import wraps
from pathlib import Path
from typing import Any

from apt_model.commands.starting import ENDING

PHASES = {  # where each begins
    "doctor": "apt_model.doctor.examine:examine",
    "tokenizing": "apt_model.data.dataset:tokenize_dataset",
    "exam": "apt_model.distill.exam:Exam.after_epoch",
    "validation": "apt_model.distill.validation:Validator.measure",
    "reading": "apt_model.distill.readings:Readings.after_epoch",
    "save": "apt_model.distill.checkpoints.manager:write_snapshot",
    "final": "apt_model.plugins.session:save_student",
}
LONGER = 0.05  # seconds before a phase, and after it


def mark(phase: str, path: Path) -> None:
    """Let the phase write a file when it begins."""
    module, _, name = PHASES[phase].partition(":")
    *inside, last = name.split(".")
    owner: Any = importlib.import_module(module)
    for one in inside:
        owner = getattr(owner, one)
    real = getattr(owner, last)

    @wraps(real)
    def marked(*args: Any, **how: Any) -> Any:
        path.touch()
        time.sleep(LONGER)
        try:
            return real(*args, **how)
        finally:
            time.sleep(LONGER)

    setattr(owner, last, marked)


if __name__ == "__main__":
    ENDING.listen()
    mark(sys.argv[1], Path(sys.argv[2]))
    del sys.argv[1:3]
    from apt_model.__main__ import main

    sys.exit(main())
