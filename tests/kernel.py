"""A real Jupyter kernel, spoken to over files and not over the network, which tests do not have."""

import os
import tempfile
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from traitlets.config import Config

HOME = Path(__file__).parent.parent


def execute(notebook: Any, directory: Path) -> None:
    """Run every cell of a notebook in a fresh kernel that works in `directory`; the outputs are put into it.

    Raises:
        CellExecutionError: a cell failed.
    """
    with tempfile.TemporaryDirectory(prefix="kernel-") as short:  # a socket's path has at most some 100 characters
        config = Config()
        config.KernelManager.transport = "ipc"
        config.KernelManager.connection_file = f"{short}/kernel.json"
        environment = {**os.environ, "PYTHONPATH": str(HOME), "IPYTHONDIR": short, "OMP_NUM_THREADS": "1"}
        client = NotebookClient(notebook, config=config, timeout=240, resources={"metadata": {"path": str(directory)}})
        client.execute(env=environment)
