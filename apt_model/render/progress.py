"""Progress of a run as short texts: steps, rate, time left, loss. Follows events; knows nothing of bars or screens."""

from collections.abc import Iterator

from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import RunStarted, StepDone
from apt_model.i18n import Phrases
from apt_model.render.sentences import duration, number, percent


class RunProgress:
    """The progress of a run.

    Attributes:
        total_steps: optimizer steps of the run; None if the data has no length.
        step: optimizer steps done so far.
    """

    def __init__(self) -> None:
        self.total_steps: int | None = None
        self.step = 0
        self._epochs: int | None = None
        self._last: StepDone | None = None
        self._laziness: float | None = None
        self._seconds_per_step = 0.0

    def follow(self, event: Event) -> None:
        """Update from one event."""
        if isinstance(event, RunStarted):
            self.total_steps, self._epochs = event.total_steps, event.num_epochs
        elif isinstance(event, ScoredObservation):
            self._laziness = event.laziness
        elif isinstance(event, StepDone):
            took = event.step_seconds
            self._seconds_per_step = took if self._last is None else 0.9 * self._seconds_per_step + 0.1 * took
            self._last, self.step = event, event.step

    def parts(self, say: Phrases, *, brief: bool = False) -> Iterator[str]:
        """Epoch, steps, rate, time left, loss, laziness; `brief` for a narrow line.

        Nothing before the first step.
        """
        last, total, pace = self._last, self.total_steps, self._seconds_per_step
        if last is None:
            return
        if self._epochs is not None and not brief:
            yield say("progress.epoch", epoch=last.epoch, epochs=self._epochs)
        yield f"{self.step}/{total}" if total else str(self.step)
        if not brief:
            yield say("progress.rate", rate=1 / pace if pace else 0.0)
        if total:
            yield say("progress.left", time=duration((total - self.step) * pace))
        yield say("progress.loss", loss=number(last.loss, 2))
        if self._laziness is not None and not brief:
            yield say("progress.laziness", laziness=percent(self._laziness))
