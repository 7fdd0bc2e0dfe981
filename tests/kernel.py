"""A real Jupyter kernel, spoken to over files and not over the network, which tests do not have."""

import os
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HOME = Path(__file__).parent.parent


def execute(notebook: Any, directory: Path) -> None:
    """Run every cell of a notebook in a fresh kernel that works in `directory`; the outputs are put into it.

    Raises:
        CellExecutionError: a cell failed.
    """
    with tempfile.TemporaryDirectory(prefix="kernel-") as short:  # a socket's path has at most some 100 characters
        manager = AsyncKernelManager(transport="ipc", connection_file=f"{short}/kernel.json")
        environment = {**os.environ, "PYTHONPATH": str(HOME), "IPYTHONDIR": short, "JUPYTER_PLATFORM_DIRS": "1"}
        client = NotebookClient(notebook, km=manager, timeout=240, resources={"metadata": {"path": str(directory)}})
        client.execute(env=environment)
