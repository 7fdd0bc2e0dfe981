"""The stages of a small student that a run keeps in `stages/`: names, which steps stay, reading without torch.

Knows files; knows nothing of weights or of who runs them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_model.errors import ConfigError, StorageError, reason_of

STAGES, ABOUT = "stages", "student.json"
MOST_PARAMETERS = 5_000_000
NEEDED = f"a Llama or GPT-2 student of at most {MOST_PARAMETERS:,} parameters, trained by apt_model in a run directory"


@dataclass(frozen=True, kw_only=True)
class KeptStages:
    """What a run keeps of its student for the browser.

    Attributes:
        about: the tokenizer, and the token ids that begin and end a text.
        stages: by step, a safetensors file of int8 weights; the first step first.
    """

    about: dict[str, Any]
    stages: dict[int, bytes]


def stage_path(run: Path, step: int) -> Path:
    """The file of a step's stage."""
    return run / STAGES / f"step-{step:08}.safetensors"


def stage_steps(run: Path) -> list[int]:
    """The steps of which there is a stage, in order."""
    return sorted(int(path.stem.removeprefix("step-")) for path in (run / STAGES).glob("step-????????.safetensors"))


def steps_to_keep(steps: Sequence[int], half: int | None) -> list[int]:
    """Of `steps` in order the first, the middle and the last: the middle is `half`, or the one nearest to half-way."""
    if len(steps) <= 2:
        return list(steps)
    first, *between, last = steps
    return [first, half if half in between else min(between, key=lambda step: abs(2 * step - last)), last]


def read_stages(run: Path) -> KeptStages:
    """The stages of a run.

    Raises:
        ConfigError: the run keeps none; says why.
        StorageError: they cannot be read.
    """
    try:
        about = json.loads((run / STAGES / ABOUT).read_text("utf-8"))
        if (refused := about["refused"]) is not None:
            raise ConfigError("the report cannot hold this student", got=refused, expected=NEEDED, fix=_FIX)
        stages = {step: stage_path(run, step).read_bytes() for step in stage_steps(run)}
    except FileNotFoundError:
        stages = {}
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise StorageError(f"the stages in {run / STAGES} cannot be read", got=reason_of(error), fix=_FIX) from error
    if not stages:
        raise ConfigError(f"{run} keeps no stage of its student", got="none", expected=NEEDED, fix=_FIX)
    return KeptStages(about=about, stages=stages)


_FIX = "leave out --with-student"
