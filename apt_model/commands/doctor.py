"""`apt-model doctor`: check models, data and settings for `distill` with the same flags, before it trains.

With `--plan`, the memory of a distillation on GPUs that are not there: nothing is loaded.
"""

import argparse
from pathlib import Path
from typing import Any

from apt_model.commands.material import add_material, gather, material_settings
from apt_model.commands.options import Command, add_command
from apt_model.commands.plan import print_plan, refuse_beside
from apt_model.commands.set_aside import tell
from apt_model.events.runfile import check_run_directory


def add(commands: Any) -> None:
    """Add the parser."""
    required: list[str] = []
    summary = "check models, data, settings, memory and disk before a distillation"
    doctor = add_command(commands, "doctor", lambda arguments: _doctor(doctor, required, arguments), summary)
    add_material(doctor)
    doctor.add_argument(
        "--out", metavar="RUN", help="run directory, to check that it has room for checkpoints and student"
    )
    doctor.add_argument(
        "--plan",
        nargs="+",
        metavar="KEY=VALUE",
        help="instead of all that: the memory of a distillation on other machines, on paper: teacher=70B student=8B "
        "gpus=8x80 (sizes, published models or directories; also nodes=, batch=, length=, dtype=, optimizer=, "
        "checkpointing=)",
    )
    required += doctor.required_later()


def _doctor(parser: Command, required: list[str], arguments: argparse.Namespace) -> None:
    if arguments.plan is not None:
        refuse_beside(parser, arguments)
        print_plan(arguments.plan, lang=getattr(arguments, "lang", "zh"))
        return
    if missing := [flag for flag in required if getattr(arguments, flag[2:].replace("-", "_")) is None]:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    config, out = material_settings(arguments), arguments.out and Path(arguments.out)
    if out:
        check_run_directory(next(path for path in (out.absolute(), *out.absolute().parents) if path.exists()))
    material = gather(arguments, config)
    tell(material.told)
    material.examine(config, run_dir=out or None)
