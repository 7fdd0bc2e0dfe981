"""Starts `apt-model watch` beside a training: a process of its own, which neither holds it up nor ends with it.

Knows the command; nothing of servers or browsers.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

from apt_model.render.sanitise import fit_encoding, sanitise


def start_viewer(run_dir: Path, *, lang: str) -> None:
    """Open the page of a run in the browser; what the process has to say is printed as it comes.

    It is out of reach of this terminal's Ctrl-C, and ends by itself once this process is gone and nobody has looked
    for a minute.

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
    """Print its lines, and wait for its end, so that nothing of it is left."""
    with viewer, suppress(OSError, ValueError):  # standard output may be closed by now
        for line in viewer.stdout or ():
            print(fit_encoding(sanitise(line.rstrip("\n")), sys.stdout.encoding), flush=True)
