"""The report: the page and its runs as one HTML file that makes no requests and runs no script but ours (by hash).

Knows the page's files and histories; knows nothing of browsers.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from apt_model.dashboard.assets import INDEX, Asset, read_assets
from apt_model.dashboard.bundle import bundle
from apt_model.dashboard.reading import HistoryReader
from apt_model.dashboard.shown import damage_record
from apt_model.errors import StorageError, reason_of
from apt_model.events.recorded import NOTHING_WHOLE, Damage, name_of, no_event_in, open_record
from apt_model.events.runfile import EVENTS, encode
from apt_model.events.stages import KeptStages, read_stages

EVENTS_BYTES = 4_000_000  # of all runs together: with the page's own files, below 5 MB
_STYLE = re.compile(r'[ \t]*<link\b[^>]*\brel="stylesheet"[^>]*\bhref="(?:\./)?static/([^"]+)"[^>]*>\n?')
_SCRIPT = re.compile(r'[ \t]*<script\b([^>]*)\bsrc="(?:\./)?static/([^"]+)"([^>]*)></script>\n?')
_UNSAFE = {  # in JSON they occur in strings only, where an escape means the same
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}

TellDamage = Callable[[Path, Damage], object]


def write_report(
    runs: Sequence[Path], path: Path, *, with_student: bool = False, tell: TellDamage = lambda run, damage: None
) -> Path:
    """Write the report of one or several runs; the lines of a damaged record that are events, and that it is damaged.

    Args:
        runs: run directories.
        path: the HTML file; replaced if it exists.
        with_student: put the stages of each run's student in it, for the page to run.
        tell: called with each run whose record is damaged.

    Raises:
        ConfigError: a run keeps no stages of its student.
        DataError: no line of any record is an event.
        StorageError: a run has no record, or the file cannot be written.
    """
    html = make_report(runs, with_student=with_student, tell=tell)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, "utf-8", newline="\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be written", got=error.strerror, fix="give another file with -o") from error
    return path


def make_report(
    runs: Sequence[Path],
    *,
    assets: Mapping[str, Asset] | None = None,
    with_student: bool = False,
    tell: TellDamage = lambda run, damage: None,
) -> str:
    """The report's HTML.

    Args:
        runs: run directories.
        assets: the page's files; ours if None.
        with_student, tell, errors: as `write_report`.

    Raises:
        ConfigError: a run keeps no stages of its student.
        DataError: no line of any record is an event.
        StorageError: a run has no record.
    """
    readers = [_read(run, EVENTS_BYTES // len(runs)) for run in runs]
    damages = [reader.history.damage or (None if reader.history.seen else NOTHING_WHOLE) for reader in readers]
    for run, damage in zip(runs, damages, strict=True):
        if damage is not None and not any(reader.history.events for reader in readers):
            raise no_event_in(run / EVENTS, damage)
        if damage is not None:
            tell(run, damage)
    read = zip(runs, readers, damages, strict=True)
    told = [_told(str(index), *one) for index, one in enumerate(read)]
    blocks = [_block("apt-data", '{"runs":[' + ",".join(told) + "]}")]
    if with_student:
        blocks += [_block(f"apt-student-{index}", _student(read_stages(run))) for index, run in enumerate(runs)]
        blocks.append(f'<script type="text/plain" id="apt-worker">{_worker()}</script>')
    return _inline(read_assets() if assets is None else assets, "\n".join(blocks), has_worker=with_student)


def _read(run: Path, largest: int) -> HistoryReader:
    try:
        open_record(run / EVENTS).close()
    except (OSError, ValueError) as error:
        what, expected, fix = f"{run} holds no run", f"a directory with {EVENTS}", "give a run directory"
        raise StorageError(what, got=reason_of(error), expected=expected, fix=fix) from error
    reader = HistoryReader(run / EVENTS, largest=largest)
    reader.catch_up()
    return reader


def _told(run_id: str, run: Path, reader: HistoryReader, damage: Damage | None) -> str:
    shown = reader.damage or damage_record(damage, None)
    about = encode({"id": run_id, "name": name_of(run.absolute()), "damage": shown}).decode()
    return about[:-1] + ',"events":' + reader.events().decode() + "}"


def _block(name: str, data: str) -> str:
    """An element that holds JSON, which no browser runs."""
    for character, escaped in _UNSAFE.items():
        data = data.replace(character, escaped)
    return f'<script type="application/json" id="{name}">{data}</script>'


def _student(kept: KeptStages) -> str:
    """The stages of a student as JSON, each in base64."""
    stages = [{"step": step, "data": base64.b64encode(data).decode()} for step, data in kept.stages.items()]
    return json.dumps({**kept.about, "stages": stages}, separators=(",", ":"))


def _worker() -> str:
    """The source of the worker that runs a student."""
    modules = read_assets(files("apt_model.dashboard").joinpath("worker"))
    return bundle(_texts(modules), "work.js").replace("</script", "<\\/script")


def _texts(assets: Mapping[str, Asset]) -> dict[str, str]:
    """The assets that are text; a browser normalises newlines before it hashes."""
    return {
        name: asset.content.decode().replace("\r\n", "\n")
        for name, asset in assets.items()
        if name.endswith((".html", ".css", ".js"))
    }


def _inline(assets: Mapping[str, Asset], data: str, *, has_worker: bool) -> str:
    """The page with its styles, scripts and data inlined, under a Content-Security-Policy that allows nothing else."""
    texts = _texts(assets)
    index = texts[INDEX]
    style = "\n".join(texts[name] for name in _STYLE.findall(index))
    scripts = [(before + after, name) for before, name, after in _SCRIPT.findall(index)]
    script = "\n".join(
        bundle(texts, name) if 'type="module"' in attributes else texts[name] for attributes, name in scripts
    )
    script, style = script.replace("</script", "<\\/script"), style.replace("</style", "<\\/style")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        f"{'worker-src blob:; ' if has_worker else ''}base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n</head>'
    tail = f"{data}\n<script>{script}</script>\n</body>"
    page = _SCRIPT.sub("", _STYLE.sub("", index))
    return _replaced(_replaced(page, "</head>", head), "</body>", tail)


def _replaced(page: str, tag: str, by: str) -> str:
    before, _, after = page.rpartition(tag)
    return before + by + after


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
