"""What rich does with hostile and with very long texts."""

import io
import time
from pathlib import Path
from typing import Any

from tests.acceptance.peers.toys import attempt


def rich_escapes(out: Path) -> str:
    """16 and 49."""
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, highlight=False)
    raw = [name for name, code in {"CSI": "\x1b[2J", "OSC 52": "\x1b]52;c;aGk=\x07"}.items() if _passes(console, code)]
    return f"passed raw: {raw}; printing '[/]': {attempt(lambda: console.print('[/]'))}"


def _passes(console: Any, code: str) -> bool:
    console.print(f"a{code}b")
    return code.rstrip("\x07") in console.file.getvalue()


def rich_long_line(out: Path) -> str:
    """52."""
    from rich.console import Console

    started = time.perf_counter()
    Console(file=io.StringIO(), width=80).print("互a" * 2_500_000)
    return f"{time.perf_counter() - started:.1f} s for a line of 10 MB"
