"""What a rank tells the others of its error, and how that becomes an error of theirs.

Knows nothing of how it is told.
"""

import json

from apt_model.errors import AptModelError, Interrupted, Told, storage_error_of


def line_of(rank: int, error: BaseException) -> str:
    """A rank's error as a line of JSON: a `Told`."""
    return json.dumps(told_by(rank, error))


def told_by(rank: int, error: BaseException) -> Told:
    """What a rank tells the others of its error."""
    if isinstance(error, AptModelError):
        return Told(rank, error.code, error.exit_code, str(error))
    if isinstance(error, OSError):
        return told_by(rank, storage_error_of(error))
    if isinstance(error, KeyboardInterrupt):
        return Told(rank, Interrupted.code, 130, "interrupted")
    if isinstance(error, SystemExit):
        return Told(rank, AptModelError.code, 1, f"left the run before its end, with exit code {error.code}")
    return Told(rank, AptModelError.code, 1, f"{type(error).__name__}: {error}".rstrip(": "))
