"""The lesson in a terminal where somebody else's progress bar is at home. Knows tqdm; knows nothing of trainers."""

from tqdm.auto import tqdm

from apt_model.config import DisplayConfig
from apt_model.events.records import Event, StepDone
from apt_model.render.terminal import TerminalSink


class TqdmTerminalSink(TerminalSink):
    """Cards between the lines of a program whose live line is tqdm's: it is lifted while a card is printed.

    Args:
        config: what to show, in which language.
    """

    def __init__(self, config: DisplayConfig) -> None:
        super().__init__(config, live=False)

    def emit(self, event: Event) -> None:
        """Show one event; a step alone shows nothing, so the bar is left in peace."""
        if not isinstance(event, StepDone):
            with tqdm.external_write_mode():
                super().emit(event)
