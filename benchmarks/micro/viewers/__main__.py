"""Command line of the load tests: many viewers, a training with its page open, a record of a million steps.

    python -m benchmarks.micro.viewers crowd       # 200 viewers and 50 that read nothing, while a record is written
    python -m benchmarks.micro.viewers training    # steps with the page open against steps without, interleaved
    python -m benchmarks.micro.viewers long        # a record of a million steps: report, server, browser

The server is `apt-model watch` as it comes, a process of its own; so is the crowd. Nothing leaves the loopback device.
Prints Markdown tables.
"""

import argparse
from collections.abc import Sequence

from benchmarks.micro.viewers.crowd import measure_crowd, measure_stalled
from benchmarks.micro.viewers.long import measure_long
from benchmarks.micro.viewers.training import measure_training


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("crowd", "training", "long"))
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--stalled", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of a long record")
    arguments = parser.parse_args(argv)
    if arguments.what == "crowd":
        measure_crowd(arguments.viewers, arguments.stalled, arguments.seconds)
        measure_stalled(arguments.stalled)
    elif arguments.what == "training":
        measure_training(arguments.rounds)
    else:
        measure_long(arguments.steps)


if __name__ == "__main__":
    main()
