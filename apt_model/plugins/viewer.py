"""Starts `apt-model watch` as a separate process that neither slows training nor ends with it.

Knows the command; knows nothing of servers or browsers.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

from apt_model.render.sanitise import fit_encoding, sanitise


def start_viewer(run_dir: Path, *, lang: str) -> None:
    """Open a run's page in the browser; the process's output is printed as it comes.

    Ctrl-C in this terminal does not reach it. It ends by itself once this process has ended and nobody has looked for
    a minute.

    Raises:
        OSError: no process can be started.
    """
    command = [sys.executable, "-m", "apt_model", "watch", str(run_dir.absolute()), "--attached", "--lang", lang]
    viewer = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        start_new_session=True,
    )
    Thread(target=_relay, args=(viewer,), name="viewer", daemon=True).start()


def _relay(viewer: subprocess.Popen[str]) -> None:
    """Print the process's lines and wait for its end, so that it leaves no zombie."""
    with viewer, suppress(OSError, ValueError):  # standard output may be closed by now
        for line in viewer.stdout or ():
            print(fit_encoding(sanitise(line.rstrip("\n")), sys.stdout.encoding), flush=True)
