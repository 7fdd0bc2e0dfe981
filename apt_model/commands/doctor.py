"""`apt-model doctor`: check models, data and settings for `distill` with the same flags, before it trains."""

import argparse
from pathlib import Path
from typing import Any

from apt_model.commands.material import add_material, gather, material_settings
from apt_model.commands.options import add_command
from apt_model.commands.set_aside import tell
from apt_model.events.runfile import check_run_directory


def add(commands: Any) -> None:
    """Add the parser."""
    doctor = add_command(
        commands, "doctor", _doctor, "check models, data, settings, memory and disk before a distillation"
    )
    add_material(doctor)
    doctor.add_argument(
        "--out", metavar="RUN", help="run directory, to check that it has room for checkpoints and student"
    )


def _doctor(arguments: argparse.Namespace) -> None:
    config, out = material_settings(arguments), arguments.out and Path(arguments.out)
    if out:
        check_run_directory(next(path for path in (out.absolute(), *out.absolute().parents) if path.exists()))
    material = gather(arguments, config)
    tell(material.told)
    material.examine(config, run_dir=out or None)
