"""`apt-model report`: write runs as one HTML file that opens offline, and its summary, plots and curves as files."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from apt_model.commands.console import print_line, speaker, tell_damage
from apt_model.commands.options import add_command


def add(commands: Any) -> None:
    """Add the parser."""
    report = add_command(commands, "report", _report, "write runs as one HTML file that opens offline")
    report.add_argument("runs", metavar="RUN", nargs="+", help="run directory; several are compared in one file")
    report.add_argument(
        "-o", "--out", metavar="FILE", help="HTML file to write (default: report.html in the first run directory)"
    )
    report.add_argument(
        "--markdown", action="store_true", help="also write summary.md and its plots next to the HTML file"
    )
    report.add_argument(
        "--png", action="store_true", help="also write the plots as PNG files, in plots/ next to the HTML file"
    )
    report.add_argument(
        "--csv", action="store_true", help="also write the values of all curves as one CSV file next to the HTML file"
    )
    report.add_argument(
        "--with-student",
        action="store_true",
        help="put the student in it, at up to three steps, to write on in the browser (5M parameters at most)",
    )
    report.add_argument("--lang", default="zh", help="language of messages, plots and summary (default: zh)")


def _report(arguments: argparse.Namespace) -> None:
    from apt_model.dashboard.report import write_report

    say, runs = speaker(arguments.lang), [Path(run) for run in arguments.runs]
    tell = partial(tell_damage, lang=arguments.lang)
    out = Path(arguments.out) if arguments.out else runs[0] / "report.html"
    path = write_report(runs, out, with_student=arguments.with_student, tell=tell)
    print_line(say("report.done", path=path, megabytes=f"{path.stat().st_size / 1e6:.1f}"))
    if arguments.csv:
        from apt_model.review.curves import write_csv

        print_line(say("report.curves", path=write_csv(runs, path.with_suffix(".csv"))))
    for run in runs:
        _more(run, path.parent if len(runs) == 1 else path.parent / run.resolve().name, arguments)


def _more(run: Path, directory: Path, arguments: argparse.Namespace) -> None:
    """Write the summary and the plots that the flags ask for; the summary includes its plots."""
    from apt_model.events.recorded import WholeEvents
    from apt_model.events.runfile import record_of
    from apt_model.i18n import Phrases
    from apt_model.review import plots
    from apt_model.review.markdown import PLOTS, write_summary

    say = speaker(arguments.lang)
    if arguments.markdown:
        print_line(say("report.summary", path=write_summary(run, directory, arguments.lang)))
    if arguments.png and not arguments.markdown:
        plots.save(list(WholeEvents(record_of(run))), directory / PLOTS, Phrases.load(arguments.lang))
    if arguments.png or arguments.markdown:
        print_line(say("report.plots", path=directory / PLOTS))
