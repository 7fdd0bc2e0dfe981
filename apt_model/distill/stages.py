"""Stages of a small student for the browser: int8 weights of its beginning, its middle and its end, in `stages/`.

Knows when a stage is due; knows nothing of how weights are packed. It reads the student and changes nothing; a stage
that cannot be written is a failure of the display. The steps: 0, half of the run, its end, and powers of two, of which
only that stays which is needed where the run ends early: three files at most, 15 MB.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from apt_model.data.encode import UNLIMITED, encode
from apt_model.events.sinks import Guard
from apt_model.events.stages import ABOUT, STAGES, stage_path, stage_steps, steps_to_keep
from apt_model.models.browser_tokenizer import KINDS, UnknownTokenizerError, browser_tokenizer
from apt_model.models.browser_weights import refusal, shape_of, tensors_of
from apt_model.models.generate import end_ids


class Stages:
    """Keeps the stages of a student; the first failure ends it.

    Args:
        run: the run directory; None: nothing is kept.
        student: itself, without a wrapper.
        tokenizer: the student's; None: nothing is kept.
        guard: isolates and reports failures.
        total_steps: of the run; None if unknown.
    """

    def __init__(
        self, run: Path | None, student: nn.Module, *, tokenizer: Any, guard: Guard, total_steps: int | None
    ) -> None:
        self._run, self._student, self._tokenizer, self._guard = run, student, tokenizer, guard
        self._half = None if total_steps is None else total_steps // 2

    def begin(self, step: int) -> None:
        """Keep the student as it begins, at `step`; stages of later steps are of a run that was left."""
        self._guarded(lambda run: self._begin(run, step))

    def after_step(self, step: int) -> None:
        """Keep the student if a stage is due."""
        if step == self._half or step & (step - 1) == 0:
            self._guarded(lambda run: self._keep(run, step))

    def at_end(self, step: int) -> None:
        """Keep the student as it ends."""
        self._guarded(lambda run: self._keep(run, step))

    def _guarded(self, action: Callable[[Path], bool]) -> None:
        run = self._run
        if run is not None and not self._guard.run("stages", lambda: action(run), False):
            self._run = None

    def _begin(self, run: Path, step: int) -> bool:
        about = self._about()
        for later in [one for one in stage_steps(run) if one > step or not step]:
            stage_path(run, later).unlink()
        (run / STAGES).mkdir(exist_ok=True)
        _write(run / STAGES / ABOUT, json.dumps(about, ensure_ascii=True).encode())
        return about["refused"] is None and (bool(stage_steps(run)) or self._keep(run, step))

    def _about(self) -> dict[str, Any]:
        refused, tokenizer = refusal(self._student), None
        if refused is None:
            try:
                tokenizer = browser_tokenizer(self._tokenizer)
            except UnknownTokenizerError as error:
                refused = f"{error}; taken are {KINDS}"
        if tokenizer is None:
            return {"schema": 1, "refused": refused}
        (start,) = encode([""], self._tokenizer, UNLIMITED, end=False)
        stop = end_ids(self._student, self._tokenizer)
        return {"schema": 1, "refused": None, "tokenizer": tokenizer, "start": start, "stop": stop}

    def _keep(self, run: Path, step: int) -> bool:
        described = {"shape": json.dumps(shape_of(self._student))}  # one key: of several, safetensors draws the order
        _write(stage_path(run, step), save(tensors_of(self._student), metadata=described))
        steps = stage_steps(run)
        for one in set(steps) - set(steps_to_keep(steps, self._half)):
            stage_path(run, one).unlink()
        return True


def _write(path: Path, content: bytes) -> None:
    """Write a file whole: a reader sees the old one or the new one."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
