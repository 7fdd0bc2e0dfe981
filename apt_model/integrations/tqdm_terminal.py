"""Terminal display beside another program's tqdm progress bar. Knows tqdm; knows nothing of trainers."""

from tqdm.auto import tqdm

from apt_model.config.sections import DisplayConfig
from apt_model.events.event import Event
from apt_model.events.records import StepDone
from apt_model.render.terminal import TerminalSink


class TqdmTerminalSink(TerminalSink):
    """Prints cards in a program with a tqdm bar, which is cleared while a card is printed.

    Args:
        config: what to show, in which language.
    """

    def __init__(self, config: DisplayConfig) -> None:
        super().__init__(config, live=False)

    def emit(self, event: Event) -> None:
        """Show one event; steps show nothing, and leave the bar alone."""
        if not isinstance(event, StepDone):
            with tqdm.external_write_mode():
                super().emit(event)
