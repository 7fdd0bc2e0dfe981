"""Where a lesson is shown unless it is said where. Knows what runs us; knows nothing of training."""

import sys

from apt_model.config import DisplayConfig
from apt_model.events.sinks import Sink
from apt_model.render.notebook import NotebookSink
from apt_model.render.terminal import TerminalSink

KERNEL_SHELL = "ZMQInteractiveShell"


def default_sink(display: DisplayConfig, *, terminal: type[TerminalSink] = TerminalSink) -> Sink:
    """HTML cards in a notebook, else cards on the terminal (or in a pipe).

    Args:
        display: what to show, in which language.
        terminal: how a terminal is shared with others, if it is.

    Raises:
        OSError: there is no standard output to write to.
    """
    return NotebookSink(display) if in_notebook() else terminal(display)


def in_notebook() -> bool:
    """Whether we run in a notebook's kernel: of Jupyter, VS Code or Colab (whose shell is derived from IPython's).

    IPython in a terminal, or merely imported, is none.
    """
    ipython = sys.modules.get("IPython")  # a kernel has loaded it long ago
    shell = ipython.get_ipython() if ipython is not None else None
    return any(kind.__name__ == KERNEL_SHELL for kind in type(shell).__mro__)
