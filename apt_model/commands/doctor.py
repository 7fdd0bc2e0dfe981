"""`apt-model doctor`: what `distill` with the same flags would run into, before it does."""

import argparse
from pathlib import Path
from typing import Any

from apt_model.commands.material import add_material, gather, material_settings
from apt_model.commands.options import add_command
from apt_model.events.runfile import check_run_directory


def add(commands: Any) -> None:
    """Its parser."""
    doctor = add_command(commands, "doctor", _doctor, "look for what would spoil a distillation, before it begins")
    add_material(doctor)
    doctor.add_argument("--out", metavar="RUN", help="run directory: is there room for checkpoints and student?")


def _doctor(arguments: argparse.Namespace) -> None:
    config, out = material_settings(arguments), arguments.out and Path(arguments.out)
    if out:
        check_run_directory(next(path for path in (out.absolute(), *out.absolute().parents) if path.exists()))
    gather(arguments, config).examine(config, run_dir=out or None)
