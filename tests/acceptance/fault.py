"""A case of the acceptance matrix. A test is named by its file below `tests/` and its function."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A case of the matrix.

    Attributes:
        number: as in the matrix.
        what: in a few words, with what has to happen.
        tests: "file::function".
        short: what is not met yet, if anything.
    """

    number: int
    what: str
    tests: tuple[str, ...]
    short: str = ""


def of(file: str, *names: str) -> tuple[str, ...]:
    """Tests of a file, by their names without `test_`."""
    return tuple(f"{file}::test_{name}" for name in names)
