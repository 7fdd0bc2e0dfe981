"""Metrics as log lines: the display of the standard plugin. Knows nothing of laziness or texts."""

import sys
from typing import IO

from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, Notice, RunFinished, RunStarted, StepDone
from apt_model.render.language import spoken_language
from apt_model.render.readings import sentence, summary_of
from apt_model.render.sanitise import fit_encoding
from apt_model.render.sentences import duration, number, percent, plain_notice


class LogSink:
    """Writes a line every `every` batches, and one at the end of each epoch and of the run.

    Args:
        lang: language of the lines.
        every: batches between two lines.
        file: where to write; standard output where None.
    """

    def __init__(self, lang: str, *, every: int, file: IO[str] | None = None) -> None:
        stream = file if file is not None else sys.stdout
        if stream is None:
            raise OSError("there is no standard output")
        self._file: IO[str] = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._language = self._say = spoken_language(lang, self._encoding)
        self._every = every
        self._told: tuple[int, int] | None = None

    def emit(self, event: Event) -> None:
        """Write the event's line, if it has one."""
        line = self._line(event)
        if line is not None:
            self._file.write(fit_encoding(line, self._encoding) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Nothing to close: the stream is not ours."""

    def _line(self, event: Event) -> str | None:
        if isinstance(event, RunStarted):
            self._say = self._language.of_run(learns_from_teacher=event.learns_from_teacher)
        say = self._say
        if isinstance(event, RunStarted):
            teacher, student = (
                f"{one.parameters:,}" if one.parameters else "?" for one in (event.teacher, event.student)
            )
            return say("log.start", teacher=teacher, student=student, steps=event.total_steps or "?")
        if isinstance(event, StepDone):
            return self._step(event)
        if isinstance(event, EpochFinished):
            line = say("log.epoch", epoch=event.epoch, loss=number(event.mean_loss), time=duration(event.seconds))
            seen = event.validation
            if seen is None:
                return line
            return line + say("log.validation", loss=number(seen.loss), agreement=percent(seen.agreement))
        if isinstance(event, Reading):
            return self._reading(event)
        if isinstance(event, RunFinished):
            losses = {"first": number(event.first_loss), "last": number(event.last_loss)}
            return say("log.end", steps=event.step, **losses, time=duration(event.seconds))
        if isinstance(event, Notice):
            return plain_notice(event, say)
        return None

    def _reading(self, reading: Reading) -> str | None:
        read = summary_of(reading)
        if read is None:
            return None
        return self._say("log.reading", step=reading.step, reading=sentence(read, self._say, unseen=reading.unseen))

    def _step(self, step: StepDone) -> str | None:
        stretch = (step.epoch, step.batch // self._every)
        if stretch == self._told:
            return None
        self._told = stretch
        return self._say(
            "log.step",
            step=step.step,
            epoch=step.epoch,
            loss=number(step.loss),
            kd=number(step.kd),
            ce=number(step.ce),
            rate=step.learning_rate,
            norm=number(step.grad_norm, 3),
            speed=number(step.tokens / step.step_seconds if step.tokens and step.step_seconds else None, 0),
        )
