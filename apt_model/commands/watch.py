"""`apt-model watch`: show runs in a browser, during training or afterwards."""

import argparse
import os
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from apt_model.commands.console import print_line, speaker
from apt_model.commands.options import add_command
from apt_model.errors import ConfigError
from apt_model.i18n import Phrases
from apt_model.ranks.group import ranks
from apt_model.ranks.signs import OUTSIDE

PORT = 8470


def add(commands: Any) -> None:
    """Add the parser."""
    watch = add_command(commands, "watch", _watch, "show runs in a browser, during training or afterwards")
    watch.add_argument("runs", metavar="RUN", nargs="+", help="run directory, or a folder of run directories")
    watch.add_argument(
        "--port",
        type=int,
        default=PORT,
        metavar="N",
        help=f"port to listen on; if taken, the next free one (default: {PORT})",
    )
    watch.add_argument(
        "--host",
        metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1, this machine only; with --share 0.0.0.0)",
    )
    watch.add_argument(
        "--share",
        action="store_true",
        help="let other machines see the page; the printed address contains an access key",
    )
    watch.add_argument(
        "--ask",
        action="store_true",
        help="let viewers ask questions of a run that trains with --ask (default: the page only reads)",
    )
    watch.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="open the page in the browser (default: yes)",
    )
    watch.add_argument("--lang", default="zh", help="language of the printed messages (default: zh)")
    watch.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)  # given by distill --watch


def _watch(arguments: argparse.Namespace) -> None:
    say = speaker(arguments.lang)
    try:
        from apt_model.dashboard.security import new_token
        from apt_model.dashboard.server import EVERYWHERE, LOOPBACK, Server, listen
    except ModuleNotFoundError as error:
        fix = "pip install 'apt-model[dashboard]'"
        raise ConfigError("the browser page needs one more package", got=f"no {error.name}", fix=fix) from error
    if not 0 <= arguments.port < 65_536:
        raise ConfigError("port is out of range", got=arguments.port, expected="0 to 65535")
    host = arguments.host or (EVERYWHERE[0] if arguments.share else LOOPBACK[0])
    if host not in LOOPBACK and not arguments.share:
        raise ConfigError(
            "this address can be reached from other machines", got=f"--host {host}", fix="add --share to allow that"
        )
    address = listen(host, arguments.port)
    token = new_token() if arguments.share else None
    server = Server(
        [Path(run) for run in arguments.runs],
        address,
        token=token,
        asks=arguments.ask,
        is_alone=_starter_is_gone() if arguments.attached else lambda: False,
        when_ready=partial(_tell, address.url(token), say, arguments),
    )
    ranks().at(OUTSIDE)
    server.serve_until_stopped()
    if not arguments.attached:
        print_line(say("watch.stopped"))


def _tell(url: str, say: Phrases, arguments: argparse.Namespace) -> None:
    """Print the address and open it, unless the only browser runs in the terminal."""
    print_line(url if arguments.attached else say("watch.open", url=url))  # `plugins.viewer` reads it
    sys.stdout.flush()
    if arguments.open:
        with suppress(webbrowser.Error):
            browser = webbrowser.get()
            if type(browser) is not webbrowser.GenericBrowser:
                browser.open(url)


def _starter_is_gone() -> Any:
    """A function that tells whether the training that started this process has ended. Lowers our own priority."""
    import psutil

    if hasattr(os, "nice"):
        os.nice(5)
    try:
        starter = psutil.Process(os.getppid())
    except psutil.NoSuchProcess:
        return lambda: True
    return lambda: not starter.is_running()
