"""`apt-model`, which is also `python -m apt_model`."""

import sys

from apt_model.commands.starting import ENDING


def main() -> int:
    """Run the command line; returns its exit code."""
    ENDING.listen()
    from apt_model.commands.console import first_word

    with first_word(sys.argv[1:]):
        from apt_model.cli import main as run
    return ENDING.over(run())


if __name__ == "__main__":
    sys.exit(main())
