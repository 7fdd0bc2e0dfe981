"""Run one case of a peer in a process of its own: put HF Trainer, TRL's GKD, accelerate or rich under a fault.

python -m tests.acceptance.peers CASE DIRECTORY     # prints one JSON line: what happened, in words
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.acceptance.peers.cases import CASES


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("directory", type=Path, help="to work in")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(json.dumps({"found": CASES[arguments.case].run(arguments.directory)}))


if __name__ == "__main__":
    main()
