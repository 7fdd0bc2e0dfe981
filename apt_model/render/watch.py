"""The default display: notebook, terminal or pipe. Knows the environment; knows nothing of training."""

import sys

from apt_model.config.sections import DisplayConfig
from apt_model.events.sinks import Sink
from apt_model.render.notebook import NotebookSink
from apt_model.render.terminal import TerminalSink

KERNEL_SHELL = "ZMQInteractiveShell"


def default_sink(display: DisplayConfig, *, terminal: type[TerminalSink] = TerminalSink) -> Sink:
    """A sink for HTML cards in a notebook, else for cards on the terminal (or in a pipe).

    Args:
        display: what to show, in which language.
        terminal: the class of the terminal's sink.

    Raises:
        OSError: there is no standard output to write to.
    """
    return NotebookSink(display) if in_notebook() else terminal(display)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook: Jupyter, VS Code or Colab (whose shell derives from IPython's).

    False for IPython in a terminal, or merely imported.
    """
    ipython = sys.modules.get("IPython")  # a kernel has always loaded it
    shell = ipython.get_ipython() if ipython is not None else None
    return any(kind.__name__ == KERNEL_SHELL for kind in type(shell).__mro__)
