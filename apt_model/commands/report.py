"""`apt-model report`: a lesson as one file that opens offline."""

import argparse
from pathlib import Path
from typing import Any

from apt_model.commands.console import print_line, speaker
from apt_model.commands.options import add_command


def add(commands: Any) -> None:
    """Its parser."""
    report = add_command(commands, "report", _report, "make one file of a lesson, to keep and to pass on")
    report.add_argument("runs", metavar="RUN", nargs="+", help="run directories; several come side by side")
    report.add_argument("-o", "--out", metavar="FILE", help="the file (default: report.html in the run directory)")
    report.add_argument("--lang", default="zh", help="language of what is printed here (default: zh)")


def _report(arguments: argparse.Namespace) -> None:
    from apt_model.dashboard.report import write_report

    say, runs = speaker(arguments.lang), [Path(run) for run in arguments.runs]
    path = write_report(runs, Path(arguments.out) if arguments.out else runs[0] / "report.html")
    print_line(say("report.done", path=path, megabytes=f"{path.stat().st_size / 1e6:.1f}"))
